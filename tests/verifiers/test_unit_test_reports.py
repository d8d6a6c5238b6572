"""Unit tests on tools of all kinds: reports, busy tools, results that come late."""

from __future__ import annotations

import threading
import time
from concurrent import futures

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.tools import busy
from gtpo_jax.types import ToolResult, ToolStatus
from gtpo_jax.verifiers import unit_tests
from tests.verifiers.programs import DOUBLE, ERROR, one, run, seen


class Scripted:
    """A tool whose calls end as they are told to."""

    def __init__(self, *results, busy_times=0):
        self.results, self.busy_times, self.codes = list(results), busy_times, []

    def submit(self, code, *, timeout=None):
        if self.busy_times:
            self.busy_times -= 1
            raise busy.ExecutorBusy("full")
        self.codes.append((code, timeout))
        future = futures.Future()
        result = self.results.pop(0)
        if result is None:
            future.cancel()
        elif isinstance(result, Exception):
            future.set_exception(result)
        elif isinstance(result, ToolResult):
            future.set_result(result)
        return future


@pytest.mark.parametrize(
    ("result", "status", "message"),
    [
        (ToolResult(status=ToolStatus.OK), ERROR, "the program ended before its test did"),
        (ToolResult(status=ToolStatus.ERROR, stderr="a\nKeyError: 1\n"), ERROR, "KeyError: 1"),
        (ToolResult(status=ToolStatus.ERROR), ERROR, "error"),
        (ToolResult(status=ToolStatus.CRASH, stderr="killed"), ERROR, "killed"),
        (ToolResult(status=ToolStatus.TIMEOUT, stderr="note"), "timeout", "timeout"),
        (ToolResult(status=ToolStatus.CPU_LIMIT), "timeout", "cpu limit"),
        (ToolResult(status=ToolStatus.MEMORY, stderr="MemoryError"), "limit", "memory"),
        (ToolResult(status=ToolStatus.OUTPUT_LIMIT), "limit", "output limit"),
        (ToolResult(status=ToolStatus.INFRA_ERROR, stderr="down"), "unknown", "down"),
        (RuntimeError("broken"), "unknown", "RuntimeError: broken"),
        (None, "unknown", "the call was canceled"),
    ],
)
def test_every_end_of_a_call_has_one_outcome(result, status, message):
    outcome = one(Scripted(result), DOUBLE)
    assert seen(outcome) == (status, message)
    assert outcome.result is (result if isinstance(result, ToolResult) else None)


def test_every_tool_status_is_judged():
    for status in ToolStatus:
        outcome = one(Scripted(ToolResult(status=status, stdout="passed\n")), DOUBLE)
        assert not outcome.passed
        assert (outcome.status.value == "unknown") == (status is ToolStatus.INFRA_ERROR)


@pytest.mark.parametrize("status", [s for s in ToolStatus if s is not ToolStatus.OK])
def test_signed_report_of_a_call_that_did_not_end_well_is_no_pass(tool, status):
    """As of a program that signs and then hangs."""

    class Failing:
        def submit(self, code, *, timeout=None):
            result = tool.submit(code, timeout=timeout).result()
            future = futures.Future()
            future.set_result(ToolResult(status=status, stdout=result.stdout))
            return future

    assert one(tool, DOUBLE).passed and not one(Failing(), DOUBLE).passed


@hypothesis.given(strategies.text(alphabet="0af \nps", max_size=80))
def test_unsigned_output_is_never_a_report(stdout):
    status, message = unit_tests._report("0123456789abcdef" * 2, stdout)
    assert (status.value, message) == (ERROR, "the program ended before its test did")


def test_keys_differ_between_calls():
    tool = Scripted(*[ToolResult(status=ToolStatus.OK)] * 3)
    run(tool, DOUBLE, *["assert True"] * 3, timeout=1.5)
    assert len({code for code, _ in tool.codes}) == 3
    assert {timeout for _, timeout in tool.codes} == {1.5}


def test_busy_tool_is_waited_for():
    tool = Scripted(*[ToolResult(status=ToolStatus.OK)] * 2, busy_times=3)
    assert len(run(tool, DOUBLE, "pass", "pass")) == 2 and tool.busy_times == 0


def test_many_programs_are_submitted_first_and_collected_later(tool):
    begin = time.monotonic()
    sleep = "import time\ntime.sleep(0.2)\n"
    runs = [
        unit_tests.submit_unit_tests(tool, sleep + f"x = {i}", ["assert x % 2 == 0", "pass"])
        for i in range(4)
    ]
    assert time.monotonic() - begin < 0.2
    assert not any(run.done() for run in runs)
    outcomes = [[outcome.passed for outcome in run.result(timeout=20)] for run in runs]
    assert outcomes == [[True, True], [False, True]] * 2


def test_result_is_set_once_whichever_call_ends_last():
    tool = Scripted(*["pending"] * 8)
    calls = []
    submit = tool.submit

    def keep(code, *, timeout=None):
        calls.append(submit(code, timeout=timeout))
        return calls[-1]

    tool.submit = keep
    gathered = unit_tests.submit_unit_tests(tool, DOUBLE, ["pass"] * 8)
    ends = [
        threading.Thread(target=call.set_result, args=[ToolResult(status=ToolStatus.TIMEOUT)])
        for call in reversed(calls)
    ]
    for thread in ends[:-1]:
        thread.start()
        thread.join()
    assert not gathered.done() and not gathered.cancel()
    ends[-1].start()
    assert [o.status.value for o in gathered.result(timeout=20)] == ["timeout"] * 8


def test_tool_that_refuses_leaves_no_call_behind():
    first = futures.Future()

    class Closing:
        def submit(self, code, *, timeout=None):
            if first.done() or self.calls:
                raise RuntimeError("closed")
            self.calls += 1
            return first

        calls = 0

    with pytest.raises(RuntimeError, match="closed"):
        run(Closing(), DOUBLE, "pass", "pass")
    assert first.cancelled()


def test_arguments_are_checked(tool):
    with pytest.raises(ValueError, match="tests is empty"):
        run(tool, DOUBLE)
    with pytest.raises(TypeError, match="tests must be a sequence of texts"):
        unit_tests.run_unit_tests(tool, DOUBLE, "assert True")
    with pytest.raises(TypeError, match="names must be a sequence of texts"):
        run(tool, DOUBLE, "pass", names="double")
    with pytest.raises(TypeError, match="solution must be a str, got bytes"):
        run(tool, b"", "pass")
    with pytest.raises(TypeError, match="setup must be a str, got NoneType"):
        run(tool, "", "pass", setup=None)
