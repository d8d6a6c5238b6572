"""Tests a running executor: the result of each way in which a call can end, and the speed.

All code here is harmless, even on a machine that isolates nothing.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

from gtpo_jax import types
from gtpo_jax.tools.executor import PythonExecutor
from gtpo_jax.types import ToolStatus

TRIVIAL = "print(2**10)"
SUBMITTERS = 8

_PATIENCE = 60.0  # seconds beyond a call's own, after which its result counts as lost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation and, where it failed, what was seen instead."""

    name: str
    ok: bool
    detail: str = ""


# Measuring.


def latencies(executor: PythonExecutor, code: str, calls: int, session: str | None) -> list[float]:
    """Seconds from submission to result of sequential calls; raises if one fails."""
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        result = executor.submit(code, timeout=_PATIENCE, session=session).result()
        seconds.append(time.perf_counter() - begin)
        if result.status is not ToolStatus.OK:
            raise RuntimeError(f"{code!r} ended as {result.status}: {result.stderr[-200:]}")
    return seconds


def calls_per_second(
    executor: PythonExecutor, code: str, calls: int, *, submitters: int, sessions: bool = False
) -> float:
    """The rate of threads that each submit their next call once they have the last result.

    With `sessions` each thread has a session of its own, begun before the clock starts.
    """
    names = [f"submitter {i}" if sessions else None for i in range(submitters)]
    each = math.ceil(calls / submitters)
    for name in names if sessions else ():
        latencies(executor, code, 1, name)
    with futures.ThreadPoolExecutor(submitters) as threads:
        begin = time.perf_counter()
        waiting = [threads.submit(latencies, executor, code, each, name) for name in names]
        for future in waiting:
            future.result()
        seconds = time.perf_counter() - begin
    for name in filter(None, names):
        executor.end_session(name)
    return each * submitters / seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value such that at least `percent` of all values are no greater."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def figures(executor: PythonExecutor, calls: int) -> dict[str, tuple[float, str]]:
    """Name → value and unit, from a short measurement with `calls` calls or a multiple of it each.

    Measure on an idle machine: any other load shows in all figures.
    """
    latencies(executor, TRIVIAL, 3, None)
    alone = latencies(executor, TRIVIAL, calls, None)
    latencies(executor, TRIVIAL, 3, "checkup")
    further = latencies(executor, TRIVIAL, 5 * calls, "checkup")
    executor.end_session("checkup")
    rates = {
        f"calls, {SUBMITTERS} submitters": calls_per_second(
            executor, TRIVIAL, 2 * calls, submitters=SUBMITTERS
        ),
        f"calls in sessions, {SUBMITTERS} of them": calls_per_second(
            executor, TRIVIAL, 10 * calls, submitters=SUBMITTERS, sessions=True
        ),
    }
    return {
        "call, median": (1e3 * percentile(alone, 50), "ms"),
        "call, 95th percentile": (1e3 * percentile(alone, 95), "ms"),
        "further call in a session, median": (1e3 * percentile(further, 50), "ms"),
        "further call in a session, 95th percentile": (1e3 * percentile(further, 95), "ms"),
        **{name: (rate, "calls/s") for name, rate in rates.items()},
    }


# The self-test.

_PACKAGES = {
    "numpy": ("import numpy; print(numpy.linalg.solve(2 * numpy.eye(2), [2, 4]))", "[1. 2.]"),
    "sympy": ("import sympy; x = sympy.Symbol('x'); print(sympy.solve(x**2 - 4))", "[-2, 2]"),
}

# Of the standard library, and loaded up front only where no file can be opened.
_IMPORT = "import graphlib; print(*graphlib.TopologicalSorter({2: [1]}).static_order())"
_WRITE = """\
try:
    with open("note", "w") as file:
        file.write("kept")
    print(open("note").read())
except OSError:
    print("refused")
"""
_LOOK = "import os; print(os.path.exists('note'))"


def self_test(
    executor: PythonExecutor,
    packages: Sequence[str],
    report: Mapping[str, str | None],
    memory_bytes: int,
) -> list[Check]:
    """Runs calls of every kind. `report` is the executor's, `memory_bytes` its memory limit."""
    written = "refused" if "nothing" in (report["scratch"] or "") else "kept"
    # Both are bounded, in case no limit holds.
    hoard = f"kept = [bytearray(1 << 20) for _ in range({2 * memory_bytes >> 20})]"
    chatter = "for _ in range(100_000): print('x' * 1000)"
    checks: dict[str, Callable[[], str]] = {
        "stdout and stderr come back": lambda: _streams(executor),
        "an exception is told": lambda: _seen(
            executor, "1 / 0", ToolStatus.ERROR, stderr="ZeroDivisionError"
        ),
        "a crash is told": lambda: _seen(
            executor, "import os; os.abort()", ToolStatus.CRASH, stderr="SIGABRT"
        ),
        **{f"{name} works": _package(executor, name) for name in packages},
        "other modules can be imported": lambda: _seen(executor, _IMPORT, stdout="1 2"),
        f"a scratch file is {written}": lambda: _seen(executor, _WRITE, stdout=written),
        "the next call starts clean": lambda: _seen(executor, _LOOK, stdout="False"),
        "a session keeps variables": lambda: _keeps(executor),
        "a time-out ends a call": lambda: _ends(executor),
        "the memory limit ends a call": lambda: _seen(executor, hoard, ToolStatus.MEMORY),
        "the output limit ends a call": lambda: _seen(executor, chatter, ToolStatus.OUTPUT_LIMIT),
        "a call that waits can be canceled": lambda: _cancels(executor),
    }
    return [_checked(name, check) for name, check in checks.items()]


def _checked(name: str, check: Callable[[], str]) -> Check:
    try:
        detail = check()
    except futures.TimeoutError:
        detail = f"no result within {_PATIENCE:.0f} s"
    except Exception as error:  # a person needs the other checks all the more
        detail = f"{type(error).__name__}: {error}"
    return Check(name=name, ok=not detail, detail=detail)


def _run(
    executor: PythonExecutor, code: str, timeout: float = 20.0, session: str | None = None
) -> types.ToolResult:
    future = executor.submit(code, timeout=timeout, session=session)
    return future.result(timeout + _PATIENCE)


def _seen(
    executor: PythonExecutor,
    code: str,
    status: ToolStatus = ToolStatus.OK,
    *,
    stdout: str | None = None,
    stderr: str = "",
) -> str:
    """Runs the code; returns an empty text if the result is as expected, else the result."""
    return _differs(_run(executor, code), status, stdout=stdout, stderr=stderr)


def _differs(
    result: types.ToolResult, status: ToolStatus, *, stdout: str | None = None, stderr: str = ""
) -> str:
    right = result.status is status and stderr in result.stderr
    if right and stdout in (None, result.stdout.strip()):
        return ""
    last = result.stderr.strip().rpartition("\n")[2]
    return f"{result.status}, stdout {result.stdout[:80]!r}, stderr {last[:120]!r}"


def _package(executor: PythonExecutor, name: str) -> Callable[[], str]:
    code, stdout = _PACKAGES.get(name, (f"import {name}; print('imported')", "imported"))
    return lambda: _seen(executor, code, stdout=stdout)


def _streams(executor: PythonExecutor) -> str:
    code = "import sys; print('é'); print('note', file=sys.stderr)"
    return _seen(executor, code, stdout="é", stderr="note")


def _keeps(executor: PythonExecutor) -> str:
    """Variables survive from call to call, but not a killed call, nor in another session."""
    name, look = "self-test", "print('x' in globals())"
    _run(executor, "x = 5", session=name)
    kept = _run(executor, look, session=name)
    other = _run(executor, look, session=f"{name}, other")
    ended = _run(executor, "import time; time.sleep(60)", timeout=0.3, session=name)
    after = _run(executor, look, session=name)
    for session in (name, f"{name}, other"):
        executor.end_session(session)
    if not ended.state_lost:
        return "the loss of a session's variables is not told"
    found = [r.stdout.strip() for r in (kept, other, after)]
    return "" if found == ["True", "False", "False"] else f"found: {', '.join(found)}"


def _ends(executor: PythonExecutor) -> str:
    begin = time.perf_counter()
    result = _run(executor, "while True: pass", timeout=0.5)
    seconds = time.perf_counter() - begin
    if seconds > 5.0:
        return f"after {seconds:.1f} s instead of 0.5 s"
    return _differs(result, ToolStatus.TIMEOUT)


def _cancels(executor: PythonExecutor) -> str:
    future = executor.submit("import time; time.sleep(60)", timeout=60.0)
    if not future.cancel():
        return "it cannot"
    return _seen(executor, TRIVIAL, stdout="1024")
