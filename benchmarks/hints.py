"""Hints where successes are rare, in the laboratory: groups that fail get one hinted success.

python -m benchmarks.hints --json figures.json

The world is a chain of right actions without a turn to spare. A hint of level ℓ begins behind ℓ of
them, as `gtpo_jax.lab.hints` says; success is that of samples without hints.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure
from benchmarks.measure import run_benchmark
from gtpo_jax import methods
from gtpo_jax.lab import hints
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.worlds.chain import RIGHT, chain
from launch import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class HintsArguments:
    """Learning with and without hints."""

    seeds: int = 64
    updates: int = 150
    lengths: tuple[int, ...] = (4, 6, 8)
    """Right actions that a success needs."""
    json: pathlib.Path | None = None
    """File for the figures."""


def measure(arguments: HintsArguments) -> tuple[dict[str, Figure], list[str]]:
    """Success in the end: without hints, with hints up to half of the way, and up to all of it."""
    settings = Settings(updates=arguments.updates)
    figures: dict[str, Figure] = {}
    notes = []
    for needed in arguments.lengths:
        world = chain(needed=needed, turns=needed + 1)
        begin = hints.after_steps(world, RIGHT)
        for levels in (0, needed // 2, needed):
            curves = hints.learn(
                world,
                begin,
                methods.grpo(),
                seeds=range(arguments.seeds),
                levels=levels,
                settings=settings,
            )
            solved = np.asarray(curves.solved)[:, -10:].mean(axis=1)
            name = f"{needed} right actions, hints up to {levels}"
            figures[name] = Figure(value=float(solved.mean()), unit="success")
            error = solved.std(ddof=1) / len(solved) ** 0.5
            notes.append(f"{name}: standard error {error:.4f}, {len(solved)} seeds")
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(HintsArguments, measure, argv, "benchmarks.hints")


if __name__ == "__main__":
    cli.main(run)
