"""Results of the demo on seeds that were not used for tuning, compared with its bars.

python -m benchmarks.demo --seeds 11 12 13 --json figures.json
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from statistics import mean

from benchmarks.figures import Figure, publish
from launch import cli
from launch.demo import DemoArguments, run_demo


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkArguments(cli.RunArguments):
    """Runs the demo over several seeds and compares each figure with its bar."""

    run_dir: pathlib.Path = pathlib.Path("runs/benchmark-demo")
    """Folder of the runs, one per seed."""
    seeds: tuple[int, ...] = (11, 12, 13)
    """Seeds of problems, demonstrations, parameters and sampling."""


def figures_of(summaries: Sequence[dict]) -> dict[str, Figure]:
    """Means over the seeds, or the worst value for figures that must hold in every run."""

    def average(phase: str, mode: str, name: str) -> float:
        return mean(summary[phase][mode][name] for summary in summaries)

    training = max(s["seconds"]["cold_start"] + s["seconds"]["gtpo"] for s in summaries)
    return {
        "cold start, sampled success": Figure(
            value=average("cold_start", "sampled", "success"),
            unit="share",
            at_least=0.25,
            at_most=0.5,
        ),
        "GTPO, sampled success": Figure(
            value=average("gtpo", "sampled", "success"), unit="share", at_least=0.75
        ),
        "GTPO, greedy success": Figure(
            value=average("gtpo", "greedy", "success"), unit="share", at_least=0.85
        ),
        "gain, sampled": Figure(
            value=mean(s["gain"] for s in summaries), unit="share", at_least=0.3
        ),
        "GTPO, format violations": Figure(
            value=average("gtpo", "sampled", "violations"), unit="share", at_most=0.03
        ),
        "gate, worst seed": Figure(
            value=min(s["gate"] for s in summaries), unit="share", at_least=0.9
        ),
        "log-prob gap, worst step": Figure(
            value=max(s["logprob_gap"] for s in summaries), unit="nats", at_most=1e-4
        ),
        "training, slowest seed": Figure(value=training, unit="seconds", at_most=480),
    }


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(BenchmarkArguments, argv, program="benchmarks.demo")
    summaries = []
    for seed in arguments.seeds:
        config = dataclasses.replace(arguments.config, seed=seed)
        run_dir = arguments.run_dir / f"seed-{seed}"
        summaries.append(run_demo(DemoArguments(run_dir=run_dir, config=config)))
    publish(figures_of(summaries), arguments.json)


if __name__ == "__main__":
    cli.main(run)
