"""Answers that no verifier may be slow about: random expressions, many of them expensive.

python -m benchmarks.judge_fuzz --count 20000 --json figures.json

The verifier `math` judges each twice: as the answer to a problem that expects a plain expression,
and as the expected answer, against itself written differently, so that both have to be read and
compared. Times are CPU times of the worker, so that other work on the machine does not count.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from benchmarks.figures import Figure, publish
from benchmarks.judge_expressions import answer
from gtpo_jax.types import Verdict
from gtpo_jax.verifiers import WorkerPool
from gtpo_jax.verifiers.numeric import TOLERANCE
from launch import cli
from launch.run import display

_EXPECTED = ("5", "x^2+1", "\\frac{\\sqrt{3}}{2}", "(1,2)", "1,2,3", "x=5", "\\pi")
_REWRITTEN = ("0+{}", "{}+0", "1\\cdot {}", "{}, 1", "{}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuzzArguments:
    """Searches for answers that the verifier `math` is slow about."""

    count: int = 20_000
    """Number of expressions; each is judged twice."""
    seed: int = 0
    """Seed of the expressions."""
    workers: int = 2
    """Number of judging processes."""
    slowest: int = 5
    """Number of slowest records that are printed."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


@dataclasses.dataclass
class Found:
    """The outcomes of all records."""

    verdicts: collections.Counter[Verdict]
    seconds: list[tuple[float, str, str]]  # CPU seconds, expected, given; the slowest first
    lost: int  # workers that took too long or died
    unjudged: list[tuple[str, str]]  # expected, given: the record at which each worker was lost


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Each expression as an answer to judge, then as an expected answer."""
    draws = random.Random(seed)
    for _ in range(count):
        text = answer(draws)
        other = draws.choice(_REWRITTEN).format(text)
        for expected, given in ((draws.choice(_EXPECTED), text), (text, other)):
            yield {"expected": expected, "given": given, "tolerance": TOLERANCE}


def fuzz(count: int, *, seed: int, workers: int) -> Found:
    """The verdicts on all records, and the time of each."""
    seconds: list[tuple[float, str, str]] = []
    lock = threading.Lock()
    waiting = {id(record): record for record in records(count, seed)}
    made = list(waiting.values())

    def observe(record: dict[str, Any], taken: float) -> None:
        with lock:
            del waiting[id(record)]
            seconds.append((taken, record["expected"], record["given"]))

    pool = WorkerPool("math", workers=workers, seconds=10.0, observe=observe)
    try:
        pool.start()
        verdicts = [pool.submit(record) for record in made]
        counted = collections.Counter(verdict.result() for verdict in verdicts)
        lost = pool.timeouts + pool.crashes
    finally:
        pool.close()
    unjudged = [(record["expected"], record["given"]) for record in waiting.values()]
    slowest_first = sorted(seconds, reverse=True)
    return Found(verdicts=counted, seconds=slowest_first, lost=lost, unjudged=unjudged)


def figures(found: Found) -> dict[str, Figure]:
    """The time of the slowest record, and the lost workers."""
    times = [seconds for seconds, *_ in found.seconds]
    shares = {verdict: found.verdicts[verdict] / max(len(times), 1) for verdict in Verdict}
    return {
        "records judged": Figure(value=len(times), unit="records"),
        "slowest record": Figure(value=max(times, default=None), unit="s", at_most=1.0),
        "mean": Figure(value=1000 * sum(times) / max(len(times), 1), unit="ms"),
        "workers lost": Figure(value=found.lost, unit="workers", at_most=0),
        **{
            str(verdict): Figure(value=shares[verdict], unit="share")
            for verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.UNVERIFIABLE)
        },
    }


def run(argv: Sequence[str]) -> None:
    arguments = tyro.cli(FuzzArguments, args=list(argv), prog="python -m benchmarks.judge_fuzz")
    found = fuzz(arguments.count, seed=arguments.seed, workers=arguments.workers)
    for seconds, expected, given in found.seconds[: arguments.slowest]:
        line = f"{seconds:.2f} s: {given!r} for {expected!r}"
        display.CONSOLE.print(line, markup=False, highlight=False)
    for expected, given in found.unjudged:
        line = f"a worker was lost: {given!r} for {expected!r}"
        display.CONSOLE.print(line, markup=False, highlight=False)
    publish(figures(found), arguments.json)


if __name__ == "__main__":
    cli.main(run)
