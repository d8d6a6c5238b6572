"""Code shared by the benchmarks: interleaved runs and medians, costs, notes, command line."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import jax
import tyro

from benchmarks.figures import Figure, publish
from launch.run import display

CORES = os.cpu_count() or 1

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one run, or the medians of several."""

    wall: float  # seconds
    cpu: float  # CPU seconds of the process, all threads
    tokens: float


def elapsed(call: Callable[[], object]) -> float:
    """Seconds until the arrays that a call returns are ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measured(run: Callable[[], float]) -> Cost:
    """The cost of a run that returns the number of its tokens."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = run()
    return Cost(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu, tokens=tokens)


def take_turns(runners: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Runs the runners in turn; returns the results of each, one per round. Round 0 warms up and is
    left out.
    """
    taken = [{name: run() for name, run in runners.items()} for _ in range(rounds + 1)]
    return {name: [results[name] for results in taken[1:]] for name in runners}


def median_seconds(runners: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median seconds of each runner; the runners run in turn."""
    return {name: statistics.median(all_) for name, all_ in take_turns(runners, rounds).items()}


def median_costs(runners: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """The median costs of each runner; the runners run in turn."""
    return {
        name: Cost(
            wall=statistics.median(cost.wall for cost in costs),
            cpu=statistics.median(cost.cpu for cost in costs),
            tokens=statistics.median(cost.tokens for cost in costs),
        )
        for name, costs in take_turns(runners, rounds).items()
    }


def load() -> str:
    """The load averages of this machine, for the notes."""
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


class Arguments(Protocol):
    """The options of a benchmark."""

    @property
    def json(self) -> pathlib.Path | None: ...


A = TypeVar("A", bound=Arguments)


def run_benchmark(
    kind: type[A],
    measure: Callable[[A], tuple[dict[str, Figure], list[str]]],
    argv: Sequence[str],
    program: str,
) -> None:
    """Measures with the options of a command line, and prints the notes and the figures."""
    arguments = tyro.cli(kind, args=list(argv), prog=f"python -m {program}")
    figures, notes = measure(arguments)
    for note in notes:
        display.CONSOLE.print(note, highlight=False)
    publish(figures, arguments.json)
