"""Compares methods from one cold start, with one budget, over several seeds.

    python -m launch.compare tiny --seeds 1 2 3 --methods gtpo grpo "gtpo normalize=turn_index"

Only the seed of the reinforcement learning varies: all runs begin with one cold start, which is
trained first if the folder has none. The same command continues an interrupted comparison.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import statistics
import zlib
from collections.abc import Sequence

from rich.table import Table

from configs import resuming
from configs.methods import make_method, split
from configs.schema import RunConfig, TrainConfig
from configs.training import check_facts
from gtpo_jax.learner.checkpoint import has_checkpoint
from launch import cli
from launch.run import cluster, display, own
from launch.run.evaluator import MODES, Evaluator
from launch.run.gate import check_gate
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import run_training

COLD_START = "cold-start"
"""Folder of the cold start within the folder of the comparison."""

FIGURES = ("success", "violations", "turns", "tool_errors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareArguments(cli.RunArguments):
    """Compares methods, with the spread over seeds."""

    run_dir: pathlib.Path = pathlib.Path("runs/compare")
    """Folder of the cold start and of one run per method and seed."""
    methods: tuple[str, ...] = ("gtpo", "grpo")
    """Methods to compare. Each is one text with the words of `train.method`."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the reinforcement learning, each a run of every method."""

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            said = " ".join(map(str, self.seeds)) or "none"
            raise ValueError(f"--seeds must be one or more, each of them once, got {said}")
        if self.config.train.method != TrainConfig.method:
            raise ValueError("--train.method is one method; give those to compare as --methods")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            said = " ".join(map(repr, self.methods)) or "none"
            raise ValueError(f"--methods must be one or more, each of them once, got {said}")
        for method in self.methods:
            make_method(split(method))

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        saved = own.of_phase(cls.folder(argv) / COLD_START, "sft")
        return saved and dataclasses.replace(saved, scheduled=resuming.PHASES)


def compare(arguments: CompareArguments) -> dict:
    """The results of every run, and their mean and standard deviation over the seeds."""
    config, run_dir = arguments.config, arguments.run_dir
    cold_start_dir = run_dir / COLD_START
    go_on = cli.command("launch.compare", arguments)
    with Session(config, cold_start_dir) as session:
        for name in arguments.methods:
            check_facts(make_method(split(name)), session.source)
        resume = has_checkpoint(cold_start_dir / "sft" / "checkpoints")
        cold_start = run_sft(session, resume=resume, go_on=go_on)
        check_gate(session, Evaluator(session), cold_start, go_on)
    results: dict[str, list[dict]] = {name: [] for name in arguments.methods}
    for seed in arguments.seeds:
        for name in arguments.methods:
            display.CONSOLE.print(f"{name}, seed {seed}")
            train = dataclasses.replace(config.train, method=split(name))
            seeded = dataclasses.replace(config, seed=seed, train=train)
            folder = run_dir / f"{folder_name(name)}-{seed}"
            results[name].append(_run_one(seeded, folder, cold_start_dir, go_on))
    return {
        "runs": results,
        "summary": {
            name: {
                f"{mode}_{figure}": _spread([run[mode][figure] for run in runs])
                for mode in MODES
                for figure in FIGURES
            }
            for name, runs in results.items()
        },
    }


def folder_name(method: str) -> str:
    """A folder name for a method: its words joined by `_`, plus a digest if that is ambiguous."""
    name = re.sub(r"[^\w.=]+", "_", method).strip("_")
    lost = name != method.replace(" ", "_")
    return f"{name}_{zlib.crc32(method.encode()):08x}" if lost else name


def _run_one(
    config: RunConfig, folder: pathlib.Path, cold_start_dir: pathlib.Path, go_on: str
) -> dict:
    with Session(config, folder) as session:
        session.save_tokenizer()
        evaluator = Evaluator(session)
        cold_start = session.load_params(cold_start_dir, "sft")
        policy = run_training(
            session,
            cold_start,
            evaluator,
            resume=has_checkpoint(folder / "train" / "checkpoints"),
            go_on=go_on,
        )
        return {mode: evaluator.final(policy, mode)[0].record() for mode in MODES}


def _spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation}


def table(result: dict) -> Table:
    """Mean ± standard deviation over seeds: one column for each method."""
    rendered = Table(title="after reinforcement, mean ± std over seeds")
    rendered.add_column("")
    for name in result["summary"]:
        rendered.add_column(name, justify="right")
    figures = ("sampled_success", "greedy_success", "sampled_violations", "sampled_turns")
    for figure in (*figures, "sampled_tool_errors"):
        summaries = [summary[figure] for summary in result["summary"].values()]
        cells = [f"{each['mean']:.3f} ± {each['std']:.3f}" for each in summaries]
        rendered.add_row(figure.replace("_", " "), *cells)
    return rendered


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(CompareArguments, argv, program="launch.compare")
    cluster.start(arguments.cluster, arguments.distributed)
    result = compare(arguments)
    cli.write_json(arguments.run_dir / "compare.json", result)
    if arguments.json is not None:
        cli.write_json(arguments.json, result)
    display.CONSOLE.print(table(result))


if __name__ == "__main__":
    cli.main(run)
