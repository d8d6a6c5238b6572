"""The laboratory: its audit beside a second code, its speed, and the time of `make lab`.

python -m benchmarks.lab --json figures.json

The second code walks all episodes in plain Python. Speed is that of a run of 128 seeds and 150
updates in `chain`, its compilation included, one method after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure
from benchmarks.lab_recursion import Chain, discounted_scores, leave_one_out
from benchmarks.measure import run_benchmark
from configs.methods import make_method, split
from gtpo_jax import methods
from gtpo_jax.lab import audit, learning
from gtpo_jax.lab.worlds import chain
from launch import cli, lab

NEEDED, TURNS, SIZE = 1, 3, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabArguments:
    """Exactness and speed of the laboratory."""

    methods: tuple[str, ...] = ("gtpo", "grpo", "rloo", "dr_grpo", "mt_grpo", "reinforce_pp")
    """Methods whose runs are timed."""
    seeds: int = 128
    updates: int = 150
    make_lab: bool = True
    """Run `make lab` too, from an empty folder."""
    json: pathlib.Path | None = None
    """File for the figures."""


def exactness() -> dict[str, float]:
    """Largest difference between the audit and the second code, by quantity."""
    logits = np.random.default_rng(0).normal(size=(NEEDED + 1, 4))
    plain = Chain(NEEDED, TURNS, logits)
    world = chain(needed=NEEDED, turns=TURNS)

    def gap(method: methods.Method, expected: np.ndarray) -> float:
        report = audit.audit(world, method, size=SIZE, params=logits)
        return float(np.abs(report.update.reshape(expected.shape) - expected).max())

    report = audit.audit(world, methods.rloo(), size=SIZE, params=logits)
    return {
        "success": abs(report.success - plain.success()),
        "gradient": float(np.abs(report.gradient - plain.gradient().ravel()).max()),
        "update_rloo": gap(
            methods.rloo(), plain.expected_update(leave_one_out, SIZE, forfeit=True)
        ),
        "update_gtpo": gap(
            methods.gtpo(shaping=0.0, silence_equal=False),
            plain.expected_update(discounted_scores, SIZE, penalty=0.1),
        ),
    }


def seconds_of_runs(arguments: LabArguments) -> dict[str, float]:
    """Wall seconds of a run of each method, compiled anew."""
    settings = learning.Settings(updates=arguments.updates)
    taken = {}
    for text in arguments.methods:
        began = time.perf_counter()
        curves = learning.learn(
            chain(), make_method(split(text)), seeds=range(arguments.seeds), settings=settings
        )
        float(curves.solved.mean())
        taken[text] = time.perf_counter() - began
    return taken


def seconds_of_make_lab() -> float:
    """Wall seconds of the suite of `make lab`, from an empty folder."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as null:
        began = time.perf_counter()
        with contextlib.redirect_stdout(null):
            lab.run([*lab.QUICK, "--folder", folder])
        return time.perf_counter() - began


def measure(arguments: LabArguments) -> tuple[dict[str, Figure], list[str]]:
    gaps, taken = exactness(), seconds_of_runs(arguments)
    figures = {
        f"audit_gap_{name}": Figure(value=float(value), unit="absolute", at_most=1e-10)
        for name, value in gaps.items()
    }
    figures["run_seconds_median"] = Figure(
        value=statistics.median(taken.values()), unit="s", at_most=20.0
    )
    figures["make_lab_seconds"] = Figure(
        value=seconds_of_make_lab() if arguments.make_lab else None, unit="s", at_most=600.0
    )
    notes = [f"{name}: {seconds:.1f} s" for name, seconds in taken.items()]
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(LabArguments, measure, argv, "benchmarks.lab")


if __name__ == "__main__":
    cli.main(run)
