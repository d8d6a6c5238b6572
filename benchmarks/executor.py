"""Speed of the Python tool compared with fresh interpreters, and traces left by 20,000 calls.

python -m benchmarks.executor --json figures.json

All calls are fully isolated: the executor is started with nothing allowed. Ours and the peers run
interleaved, and a figure is the median over the rounds; run it on a machine that is otherwise idle.

"One at a time" is the time from the submission of a call to its result, with the next call right
after it. Calls per second are measured with threads that each wait for a result before they submit
again.

The hung call sleeps and never ends; beside it 100 calls are submitted at once, and their 99th
percentile is compared with that of 100 calls without it. The executor has one place per processor
and at least two, so the hung call leaves another. A call that computes without end is also
measured, for information: besides the place it occupies a processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks import executor_stress
from benchmarks.figures import Figure
from benchmarks.measure import CORES, load, run_benchmark, take_turns
from gtpo_jax.tools import checkup, executor
from gtpo_jax.tools.checkup import SUBMITTERS, TRIVIAL
from launch import cli

PLACES = max(2, CORES)
SOLVE = "import sympy; x = sympy.Symbol('x'); print(sympy.solve(x**3 - 6*x**2 + 11*x - 6, x))"

_BARE = [sys.executable, "-I", "-S", "-c", TRIVIAL]
_SCIENTIFIC = [sys.executable, "-c", f"import numpy, sympy; {TRIVIAL}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutorArguments:
    """The Python tool: latency, throughput, a hung neighbor, and a long run of hostile calls."""

    rounds: int = 7
    """Number of measuring rounds."""
    calls: int = 100
    """Calls per round, one at a time."""
    rate_calls: int = 400
    """Calls per round with eight submitters."""
    session_calls: int = 1000
    """Further calls per session and round."""
    solve_calls: int = 20
    """Calls per round that solve an equation with sympy."""
    fresh_calls: int = 10
    """Bare interpreters started per round."""
    beside: int = 100
    """Calls submitted at once beside the hung one."""
    stress: int = 20_000
    """Calls of the long run, one in ten hostile; 0 skips it."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


Rounds = dict[str, list[list[float]]]
"""Measurement → round → its values."""


def fresh(command: Sequence[str], calls: int) -> list[float]:
    """Seconds from start to end of one new process per call."""
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
        seconds.append(time.perf_counter() - begin)
        if done.stdout != "1024\n":
            raise RuntimeError(f"{command} printed {done.stdout!r}")
    return seconds


def bubblewrap() -> list[str] | None:
    """A bare interpreter inside bubblewrap, if bubblewrap is installed and works here."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    command = [program, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", *_BARE]
    done = subprocess.run(command, capture_output=True)
    return command if done.returncode == 0 else None


def all_at_once(tool: executor.PythonExecutor, calls: int) -> list[float]:
    """Seconds from submission to result of each of many calls submitted together."""
    seconds: list[float] = []
    told = threading.Semaphore(0)

    def on_result(begin: float, _: object) -> None:
        seconds.append(time.perf_counter() - begin)
        told.release()

    waiting = []
    for _ in range(calls):
        begin = time.perf_counter()
        waiting.append(tool.submit(TRIVIAL))
        waiting[-1].add_done_callback(functools.partial(on_result, begin))
    for future in waiting:
        if future.result().stdout != "1024\n":
            raise RuntimeError(f"a call beside others gave {future.result()}")
        told.acquire()
    return seconds


@contextlib.contextmanager
def endless_call(tool: executor.PythonExecutor, code: str) -> Iterator[None]:
    """A call that runs as long as the context lasts."""
    call = tool.submit(code, timeout=600.0)
    time.sleep(0.1)
    if call.done():
        raise RuntimeError(f"the call that was to hang gave {call.result()}")
    try:
        yield
    finally:
        call.cancel()


def beside(tool: executor.PythonExecutor, code: str, calls: int) -> list[float]:
    with endless_call(tool, code):
        return all_at_once(tool, calls)


def in_session(tool: executor.PythonExecutor, calls: int) -> list[float]:
    """Seconds of further calls in a session; its first call, which starts the interpreter, is left
    out.
    """
    checkup.latencies(tool, TRIVIAL, 1, "benchmark")
    seconds = checkup.latencies(tool, TRIVIAL, calls, "benchmark")
    tool.end_session("benchmark")
    return seconds


def speeds(arguments: ExecutorArguments) -> Rounds:
    """Latencies in seconds and rates in calls per second, of ours and of fresh interpreters."""
    with executor.PythonExecutor(max_running=PLACES) as tool:
        rate = functools.partial(checkup.calls_per_second, tool, TRIVIAL, submitters=SUBMITTERS)
        runners: dict[str, Callable[[], list[float]]] = {
            "ours": lambda: checkup.latencies(tool, TRIVIAL, arguments.calls, None),
            "bare": lambda: fresh(_BARE, arguments.fresh_calls),
            "scientific": lambda: fresh(_SCIENTIFIC, 1),
            "solve": lambda: checkup.latencies(tool, SOLVE, arguments.solve_calls, None),
            "rate": lambda: [rate(arguments.rate_calls)],
            "session": lambda: in_session(tool, arguments.session_calls),
            "session rate": lambda: [rate(4 * arguments.session_calls, sessions=True)],
        }
        wrapped = bubblewrap()
        if wrapped is not None:
            runners["bubblewrap"] = lambda: fresh(wrapped, arguments.fresh_calls)
        return take_turns(runners, arguments.rounds)


def neighbors(arguments: ExecutorArguments) -> Rounds:
    """Latencies of calls without and with a call that never ends beside them."""
    with executor.PythonExecutor(max_running=PLACES) as tool:
        runners = {
            "alone": lambda: all_at_once(tool, arguments.beside),
            "hung": lambda: beside(tool, "import time; time.sleep(600)", arguments.beside),
            "busy": lambda: beside(tool, "while True: pass", arguments.beside),
        }
        return take_turns(runners, arguments.rounds)


def stress_figures(calls: int) -> dict[str, Figure]:
    """Wrong results and remains of a long run in which one call in ten is hostile."""
    bounds = {  # name → unit, bar
        "wrong or lost results": ("calls", 0),
        "leftover processes": ("processes", 0),
        "leaked descriptors": ("descriptors", 0),
        "growth of resident memory": ("share", 0.05),
    }
    found: dict[str, float | None] = dict.fromkeys(bounds)
    if calls:
        outcome = executor_stress.stress(calls)
        values = (
            len(outcome.wrong),
            outcome.leftover,
            sum(outcome.leaked.values()),
            max(outcome.growth.values()),  # growth of the processes that stay
        )
        found = dict(zip(bounds, values, strict=True))
    return {
        f"long run, {name}": Figure(value=found[name], unit=unit, at_most=bar)
        for name, (unit, bar) in bounds.items()
    }


def at(rounds: Sequence[Sequence[float]], percent: float) -> float:
    """The median over the rounds of a round's percentile."""
    return statistics.median(checkup.percentile(values, percent) for values in rounds)


def measure(arguments: ExecutorArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    before = load()
    speed, others = speeds(arguments), neighbors(arguments)
    ours, session = at(speed["ours"], 50), at(speed["session"], 50)

    def milliseconds(seconds: float, **bar: float) -> Figure:
        return Figure(value=1e3 * seconds, unit="ms", **bar)

    bubble = at(speed["bubblewrap"], 50) / ours if "bubblewrap" in speed else None
    alone = at(others["alone"], 99)
    figures = {
        "call, median": milliseconds(ours, at_most=5),
        "call, 95th percentile": milliseconds(at(speed["ours"], 95), at_most=12),
        "fresh `python -I -S -c` / ours": Figure(
            value=at(speed["bare"], 50) / ours, unit="ratio", at_least=2
        ),
        "fresh Python with numpy and sympy / ours": Figure(
            value=at(speed["scientific"], 50) / ours, unit="ratio", at_least=50
        ),
        "bubblewrap and a fresh Python / ours": Figure(value=bubble, unit="ratio"),
        "sympy solve, median": milliseconds(at(speed["solve"], 50)),
        f"calls, {SUBMITTERS} submitters": Figure(
            value=at(speed["rate"], 50), unit="calls/s", at_least=200
        ),
        "further call in a session, median": milliseconds(session, at_most=0.6),
        "further call in a session, 95th percentile": milliseconds(at(speed["session"], 95)),
        "further calls in one session": Figure(
            value=statistics.median(1 / statistics.mean(v) for v in speed["session"]),
            unit="calls/s",
        ),
        f"further calls in {SUBMITTERS} sessions": Figure(
            value=at(speed["session rate"], 50), unit="calls/s", at_least=3000
        ),
        "99th percentile beside a hung call / without it": Figure(
            value=at(others["hung"], 99) / alone, unit="ratio", at_most=1.5
        ),
        "99th percentile beside a busy call / without it": Figure(
            value=at(others["busy"], 99) / alone, unit="ratio"
        ),
        **stress_figures(arguments.stress),
    }
    notes = [
        f"{CORES} processors, load {before} before; medians of {arguments.rounds} interleaved"
        " rounds",
        f"{PLACES} places; beside a hung call: {arguments.beside} calls at once, whose 99th"
        f" percentile without it is {1e3 * alone:.3g} ms",
        f"fresh Python: {1e3 * at(speed['bare'], 50):.3g} ms; with numpy and sympy:"
        f" {1e3 * at(speed['scientific'], 50):.3g} ms",
    ]
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(ExecutorArguments, measure, argv, "benchmarks.executor")


if __name__ == "__main__":
    cli.main(run)
