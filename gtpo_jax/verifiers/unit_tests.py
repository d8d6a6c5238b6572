"""Unit tests of a program that a policy wrote, run by any `types.Tool`.

Each test runs in a call of its own, after the program. Tricks by which a wrong program may try to
pass, and the remedies:

| trick | remedy |
|---|---|
| `sys.exit(0)`, `os._exit(0)`, an exit handler, a thread | a pass needs a report at the very end |
| printing what a passing run prints | the report is signed with a key that changes every call |
| printing all text found in memory, files and frames | the signature is not among that text |
| objects equal to everything | an assert repeats its `==` with a value that differs |
| `builtins.all = …`, `def all(…)` | tests see builtins as they were before the program |
| replacing a helper of `setup` | tests see the names of `setup` as they were before the program |
| a trace function that skips asserts | it is removed before the test runs |
| forks, one of which passes | only the first process can report |

Some tricks remain, since program and test share one process. A program can read the test, with its
expected values, in the frames of its callers. Written against this very file, it can also find the
key there and sign a report. It can change a module that the test uses (`math.isclose`). Where the
tool lets it fork, it can try a guess in each process and learn from a further call which one was
right. A value that equals some others, but not those that are tried, passes as honest. A test that
compares with `unittest.mock.ANY` fails, since that object equals everything. So inspect programs
that mention frames, `gc`, `inspect` or `ctypes` before you trust a sudden success.

Benchmarks:

- HumanEval: `solution=prompt + completion`, `tests=[test + f"\\ncheck({entry_point})"]` and
  `names=[entry_point]`.
- MBPP: `solution=code`, `tests=test_list`, `setup=test_setup_code` and `names` with the function
  that the tests call: in some problems it has the name of a builtin, such as `sum`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent import futures

from gtpo_jax import types
from gtpo_jax.tools import busy, render
from gtpo_jax.verifiers.judges import unit_test


class TestStatus(enum.StrEnum):
    """The end of a test. `UNKNOWN` says nothing about the program; every other status does."""

    __test__ = False  # pytest takes the name for a class of tests

    PASSED = "passed"
    FAILED = "failed"  # an assertion
    ERROR = "error"  # another exception, a crash, or an end before that of the test
    TIMEOUT = "timeout"  # of wall or CPU time
    LIMIT = "limit"  # of memory or output
    UNKNOWN = "unknown"  # the tool failed, or `setup` or the test itself is not valid Python


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestOutcome:
    """The end of one test, and its reason."""

    __test__ = False

    status: TestStatus
    message: str = ""  # one line, such as `KeyError: 1`; empty when it passed
    result: types.ToolResult | None = None  # of the call; `None` when it was canceled

    @property
    def passed(self) -> bool:
        return self.status is TestStatus.PASSED


def run_unit_tests(
    tool: types.Tool,
    solution: str,
    tests: Sequence[str],
    *,
    setup: str = "",
    timeout: float | None = None,
    names: Collection[str] | None = None,
) -> list[TestOutcome]:
    """Calls `submit_unit_tests` and waits for the outcomes."""
    return submit_unit_tests(
        tool, solution, tests, setup=setup, timeout=timeout, names=names
    ).result()


def submit_unit_tests(
    tool: types.Tool,
    solution: str,
    tests: Sequence[str],
    *,
    setup: str = "",
    timeout: float | None = None,
    names: Collection[str] | None = None,
) -> futures.Future[list[TestOutcome]]:
    """Runs each test after `solution`, in a call of its own; outcomes are in the order of tests.

    To judge many programs at once, submit them all and then collect. This waits while the queue of
    the tool is full, so never call it from a callback of the tool's futures.

    `setup` (imports and helpers) runs first; solution and tests both see its names. `solution` runs
    unmodified as the module `solution`, so `if __name__ == "__main__"` is false in it, as in any
    module that tests import. `names` are the global names of the solution that the tests see;
    `None` means all but those of `setup` and of builtins. `timeout`, in seconds, limits one call,
    which runs `setup`, `solution` and one test.
    """
    for name, value in (("solution", solution), ("setup", setup)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, got {type(value).__name__}")
    for name, value in (("tests", tests), ("names", names)):
        if isinstance(value, str):
            raise TypeError(f"{name} must be a sequence of texts, got a str; put it in a list")
    if not tests:
        raise ValueError("tests is empty, and a program that no test has seen would pass")
    keys = [secrets.token_hex(16) for _ in tests]
    programs = [
        _program(setup, solution, test, names, key) for test, key in zip(tests, keys, strict=True)
    ]
    reports = [functools.partial(_report, key) for key in keys]
    return submit_programs(tool, programs, reports, timeout=timeout)


Report = Callable[[str], tuple[TestStatus, str]]
"""Reads the end of a test and its reason from the stdout of a call that ended well."""


def submit_programs(
    tool: types.Tool, programs: Sequence[str], reports: Sequence[Report], *, timeout: float | None
) -> futures.Future[list[TestOutcome]]:
    """Runs each program, one per test, in a call of its own; no thread waits for outcomes."""
    calls: list[tuple[Report, futures.Future[types.ToolResult]]] = []
    try:
        for program, report in zip(programs, reports, strict=True):
            calls.append((report, busy.submit_when_free(tool, program, timeout=timeout)))
    except BaseException:
        for _, call in calls:
            call.cancel()
        raise
    gathered: futures.Future[list[TestOutcome]] = futures.Future()
    gathered.set_running_or_notify_cancel()  # from here on nobody can cancel it
    lock = threading.Lock()
    missing = len(calls)

    def count(call: futures.Future[types.ToolResult]) -> None:
        nonlocal missing
        del call
        with lock:
            missing -= 1
            last = missing == 0
        if last:
            gathered.set_result([_outcome(report, call) for report, call in calls])

    for _, call in calls:
        call.add_done_callback(count)
    return gathered


_STATUS = {
    types.ToolStatus.TIMEOUT: TestStatus.TIMEOUT,
    types.ToolStatus.CPU_LIMIT: TestStatus.TIMEOUT,
    types.ToolStatus.MEMORY: TestStatus.LIMIT,
    types.ToolStatus.OUTPUT_LIMIT: TestStatus.LIMIT,
    types.ToolStatus.INFRA_ERROR: TestStatus.UNKNOWN,
}


def _outcome(report: Report, call: futures.Future[types.ToolResult]) -> TestOutcome:
    """The outcome of a call that is done."""
    if call.cancelled():
        return TestOutcome(status=TestStatus.UNKNOWN, message="the call was canceled")
    error = call.exception()
    if error is not None:
        message = f"{type(error).__name__}: {error}"
        return TestOutcome(status=TestStatus.UNKNOWN, message=message)
    result = call.result()
    if result.status is types.ToolStatus.OK:
        status, message = report(result.stdout)
    else:
        status = _STATUS.get(result.status, TestStatus.ERROR)
        told = render.exception_of(result) or result.stderr.rstrip().rpartition("\n")[2]
        message = told if status in (TestStatus.ERROR, TestStatus.UNKNOWN) else ""
        message = " ".join(message.split())[:200] or result.status.value.replace("_", " ")
    return TestOutcome(status=status, message=message, result=result)


def _report(key: str, stdout: str) -> tuple[TestStatus, str]:
    """Reads the last line if it is signed."""
    last = stdout.removesuffix("\n").rpartition("\n")[2]
    signature, _, rest = last.partition(" ")
    if signature != key[::-1]:
        return TestStatus.ERROR, "the program ended before its test did"
    status, _, message = rest.partition(" ")
    return TestStatus(status), message


def _program(setup: str, solution: str, test: str, names: Collection[str] | None, key: str) -> str:
    """The code of one call. It uses a copy of builtins, which no patch of the solution reaches."""
    given = ", ".join(map(repr, (setup, solution, test, names and sorted(names), key)))
    source = f"{_source()}\njudge({given})\n"
    return f"import builtins\nexec({source!r}, {{'__builtins__': dict(vars(builtins))}})\n"


@functools.cache
def _source() -> str:
    return inspect.getsource(unit_test)
