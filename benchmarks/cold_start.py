"""Trains cold starts of many seeds and counts how many learn to copy digits.

python -m benchmarks.cold_start --seeds 0 1 2 3 --json figures.json

Each seed has its own parameters, demonstrations and order. The same command continues an
interrupted benchmark; finished seeds are not repeated.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from statistics import mean

from benchmarks.figures import Figure, publish
from configs.schema import RunConfig
from gtpo_jax.learner.checkpoint import has_checkpoint
from launch import cli
from launch.run import display
from launch.run.evaluator import Evaluator
from launch.run.gate import arithmetic_success
from launch.run.network import CHECKPOINTS
from launch.run.session import Session
from launch.sft import run_sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdStartArguments(cli.RunArguments):
    """Cold starts alone over several seeds, followed by the gate."""

    run_dir: pathlib.Path = pathlib.Path("runs/cold-starts")
    """Folder of the runs, one per seed."""
    seeds: tuple[int, ...] = tuple(range(20))
    """Seeds of parameters, problems and demonstrations."""

    def __post_init__(self):
        if not self.seeds:
            raise ValueError("seeds must name at least one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The result of one seed."""

    seed: int
    gate: float  # greedy success on plain arithmetic
    sampled: float  # sampled success on held-out problems of all families
    cpu_seconds: float | None  # CPU seconds of training and its demonstrations; None if interrupted


def run_seed(config: RunConfig, run_dir: pathlib.Path) -> SeedResult:
    """Trains the cold start of a seed, or its remaining steps; a finished seed returns its saved
    result.
    """
    settings, path = json.loads(json.dumps(dataclasses.asdict(config))), run_dir / "cold_start.json"
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["settings"] == settings:
            return SeedResult(**saved["result"])
        raise ValueError(f"{path} was made with other settings; give another --run-dir")
    resume = has_checkpoint(run_dir / "sft" / CHECKPOINTS)
    with Session(config, run_dir) as session:
        began = time.process_time()  # CPU time of all threads, without the tool's processes
        params = run_sft(session, resume=resume)
        spent = time.process_time() - began
        evaluator = Evaluator(session)
        gate = arithmetic_success(session, evaluator, params)
        sampled = evaluator.final(params, "sampled")[0].success
    if gate is None:
        raise ValueError("the gate asks for plain arithmetic; add it to --task.families")
    result = SeedResult(
        seed=config.seed, gate=gate, sampled=sampled, cpu_seconds=None if resume else spent
    )
    cli.write_json(path, {"settings": settings, "result": dataclasses.asdict(result)})
    return result


def figures_of(results: Sequence[SeedResult], *, gate: float) -> dict[str, Figure]:
    """The number that pass the gate, the worst seed, and how much is left for reinforcement
    learning.
    """
    spent = [result.cpu_seconds for result in results if result.cpu_seconds is not None]
    return {
        f"seeds that pass, of {len(results)}": Figure(
            value=sum(result.gate >= gate for result in results),
            unit="seeds",
            at_least=len(results),
        ),
        "greedy success on arithmetic, worst seed": Figure(
            value=min(result.gate for result in results), unit="share", at_least=gate
        ),
        "sampled success, mean": Figure(
            value=mean(result.sampled for result in results),
            unit="share",
            at_least=0.25,
            at_most=0.5,
        ),
        "CPU time of a cold start, mean": Figure(
            value=mean(spent) if spent else None, unit="seconds"
        ),
    }


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(ColdStartArguments, argv, program="benchmarks.cold_start")
    results = []
    for seed in arguments.seeds:
        config = dataclasses.replace(arguments.config, seed=seed)
        result = run_seed(config, arguments.run_dir / f"seed-{seed}")
        display.CONSOLE.print(
            f"seed {seed}: greedy success on arithmetic {result.gate:.3f},"
            f" sampled success {result.sampled:.3f}",
            highlight=False,
        )
        results.append(result)
    publish(figures_of(results, gate=arguments.config.train.gate), arguments.json)


if __name__ == "__main__":
    cli.main(run)
