"""GDPO and CJ-GRPO on generated sums: how far each raises the success of its cold start.

python -m benchmarks.diffusion --seeds 11 12 13 --json figures.json

Each seed has its own parameters, problems and demonstrations; its cold start is shared by the
methods. The same command continues an interrupted benchmark.
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
from launch.run.network import CHECKPOINTS
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import run_training

PRESET = "diffusion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionArguments(cli.RunArguments):
    """Trains a diffusion model with several methods and seeds, from the same cold starts."""

    run_dir: pathlib.Path = pathlib.Path("runs/benchmark-diffusion")
    """Folder of the runs, one per seed and method."""
    seeds: tuple[int, ...] = (11, 12, 13)
    """Seeds of problems, demonstrations, parameters and sampling."""
    methods: tuple[str, ...] = ("cj_grpo", "gdpo")
    """Methods, each as one word."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Success on held-out problems, and the seconds that a phase took, evaluation not included."""

    sampled: float
    greedy: float
    seconds: float


def of_cold_start(config: RunConfig, run_dir: pathlib.Path) -> Result:
    """Trains the cold start of a seed."""
    with Session(config, run_dir) as session:
        began = time.monotonic()
        params = run_sft(session, resume=has_checkpoint(run_dir / "sft" / CHECKPOINTS))
        return _result(session, params, time.monotonic() - began)


def of_method(config: RunConfig, run_dir: pathlib.Path, cold_start: pathlib.Path) -> Result:
    """Trains a policy from the cold start in another folder."""
    with Session(config, run_dir) as session:
        began = time.monotonic()
        resume = has_checkpoint(run_dir / "train" / CHECKPOINTS)
        start = session.load_start(cold_start)
        params = run_training(session, start, Evaluator(session), resume=resume)
        return _result(session, params, time.monotonic() - began)


def _result(session: Session, params, seconds: float) -> Result:
    evaluator = Evaluator(session)
    found = [evaluator.final(params, mode)[0].success for mode in ("sampled", "greedy")]
    return Result(sampled=found[0], greedy=found[1], seconds=seconds)


def once(path: pathlib.Path, config: RunConfig, make) -> Result:
    """The result in a file, or a new one; an error if it was made with other settings."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["settings"] != settings:
            raise ValueError(f"{path} was made with other settings; give another --run-dir")
        return Result(**saved["result"])
    result = make()
    cli.write_json(path, {"settings": settings, "result": dataclasses.asdict(result)})
    return result


def run_seed(config: RunConfig, run_dir: pathlib.Path, methods: Sequence[str]) -> dict[str, Result]:
    """Results of the cold start and of each method, by name."""
    cold = run_dir / "cold-start"
    results = {
        "cold start": once(cold / "result.json", config, lambda: of_cold_start(config, cold))
    }
    for method in methods:
        train = dataclasses.replace(config.train, method=(method,))
        own, folder = dataclasses.replace(config, train=train), run_dir / method
        results[method] = once(
            folder / "result.json", own, lambda own=own, to=folder: of_method(own, to, cold)
        )
    return results


def figures_of(seeds: Sequence[dict[str, Result]], methods: Sequence[str]) -> dict[str, Figure]:
    """Means over the seeds, and the worst seed for what has a bar."""
    figures = {}
    for name in ("cold start", *methods):
        for mode in ("sampled", "greedy"):
            value = mean(getattr(results[name], mode) for results in seeds)
            figures[f"{name}, {mode} success"] = Figure(value=value, unit="share")
    for name in methods:
        gains = [results[name].sampled - results["cold start"].sampled for results in seeds]
        spent = [results[name].seconds + results["cold start"].seconds for results in seeds]
        figures[f"{name}, gain, worst seed of {len(seeds)}"] = Figure(
            value=min(gains), unit="share", at_least=0.2
        )
        figures[f"{name}, cold start and training, slowest seed"] = Figure(
            value=max(spent), unit="seconds", at_most=1200
        )
    return figures


def run(argv: Sequence[str]) -> None:
    preset = [] if argv and not argv[0].startswith("-") else [PRESET]
    arguments = cli.parse(DiffusionArguments, [*preset, *argv], program="benchmarks.diffusion")
    seeds = []
    for seed in arguments.seeds:
        config = dataclasses.replace(arguments.config, seed=seed)
        results = run_seed(config, arguments.run_dir / f"seed-{seed}", arguments.methods)
        seeds.append(results)
        shown = "  ".join(f"{name} {result.sampled:.3f}" for name, result in results.items())
        display.CONSOLE.print(f"seed {seed}, sampled success: {shown}", highlight=False)
    publish(figures_of(seeds, arguments.methods), arguments.json)


if __name__ == "__main__":
    cli.main(run)
