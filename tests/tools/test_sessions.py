"""Sessions: interpreters that stay between the calls of one trajectory."""

from __future__ import annotations

import json
import os
import signal
import struct
import time

import pytest

from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import ToolStatus
from tests.tools.calls import descendants, last_line, linux_only, run, supervisor, zygote

pytestmark = [linux_only, pytest.mark.slow]


@pytest.fixture(scope="module")
def executor():
    limits = ToolLimits(guard_seconds=1.0, cpu_seconds=2)
    with PythonExecutor(preload=(), max_running=2, limits=limits) as executor:
        yield executor


@pytest.fixture
def call(executor, request):
    """Calls of one session, which no other test shares and which ends with the test."""
    name = request.node.name

    def call(code, **options):
        return run(executor, code, session=name, **options)

    yield call
    executor.end_session(name)


def test_variables_functions_and_imports_survive_from_call_to_call(call):
    assert call("import math\nx = 2\ndef f(): return math.factorial(x)").stdout == ""
    assert call("x = 5").stdout == ""
    assert call("print(f())").stdout == "120\n"


def test_sessions_and_single_calls_do_not_see_each_other(executor, call):
    call("x = 1; import builtins, sys; builtins.y = 2; open('note', 'w').close()")
    look = "import os; print('x' in globals(), 'y' in dir(__builtins__), os.listdir('.'))"
    assert run(executor, look).stdout == "False False []\n"
    assert run(executor, look, session="other").stdout == "False False []\n"
    assert call("import os; print(x, y, os.listdir('.'))").stdout == "1 2 ['note']\n"
    executor.end_session("other")


def test_failure_of_a_call_leaves_the_session_alive(call):
    call("x = 1")
    for code, status in [
        ("x = 2; 1 / 0", ToolStatus.ERROR),
        ("import sys; x = 3; sys.exit(4)", ToolStatus.ERROR),
        ("import sys; sys.exit()", ToolStatus.OK),
        ("bytearray(10**12)", ToolStatus.MEMORY),
        ("y = = 2", ToolStatus.ERROR),
    ]:
        result = call(code)
        assert result.status is status and not result.state_lost
    assert call("print(x)").stdout == "3\n"


def test_traceback_names_the_line_of_this_call_alone(call):
    call("# one\n# two\ndef f():\n    raise ValueError('late')")
    lines = call("\nf()").stderr.splitlines()
    assert lines[1] == '  File "<tool>", line 2, in <module>'
    assert lines[-1] == "ValueError: late"


def test_code_that_takes_streams_and_exits_away_ends_as_it_should(executor, call):
    broken = "import os, sys\nos._exit = print\ndel sys.stdout\nraise KeyError('last')"
    for result in (run(executor, broken), call(broken)):
        assert result.status is ToolStatus.ERROR
        assert last_line(result.stderr) == "KeyError: 'last'"
    assert call("print(1)", timeout=5).status is ToolStatus.ERROR  # its stdout is still gone


def test_output_belongs_to_the_call_that_printed_it(call):
    assert [call(f"print({i}, end='')").stdout for i in range(5)] == list("01234")
    threads = """\
        import threading, time
        def late():
            time.sleep(0.1); print("between the calls", flush=True)
        threading.Thread(target=late).start()
        print("at once")
        """
    assert call(threads).stdout == "at once\n"
    time.sleep(0.4)
    assert call("print('next')").stdout == "next\n"


def test_measurements_are_those_of_the_call(call):
    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    assert 0.25 < call(busy).cpu_seconds < 0.6
    assert call("print(1)").cpu_seconds < 0.1
    assert 1 << 20 < call("x = bytearray(10**8)").peak_bytes < 1 << 28


@pytest.mark.slow
def test_processor_limit_counts_each_call_anew(call):
    busy = "import time; end = time.process_time() + 1.2\nwhile time.process_time() < end: pass"
    for _ in range(3):
        assert call(busy, timeout=20).status is ToolStatus.OK
    result = call("while True: pass", timeout=20)
    assert result.status is ToolStatus.CPU_LIMIT and result.state_lost


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import time; time.sleep(60)", ToolStatus.TIMEOUT),
        ("while True: print('x' * 10**5)", ToolStatus.OUTPUT_LIMIT),
        ("import os; os.abort()", ToolStatus.CRASH),
        ("import os; os._exit(0)", ToolStatus.OK),
        ("import os; os._exit(3)", ToolStatus.ERROR),
        ("import os, time; os.close(3); time.sleep(60)", ToolStatus.CRASH),
    ],
)
def test_call_that_loses_the_interpreter_says_so_and_the_next_starts_clean(call, code, status):
    assert not call("x = 1").state_lost
    lost = call(code, timeout=1.0)
    assert lost.status is status and lost.state_lost
    fresh = call("print('x' in globals())")
    assert fresh.stdout == "False\n" and not fresh.state_lost


def test_report_forged_on_the_sessions_own_channel_ends_the_session_alone(executor, call):
    """A session can forge results of its own calls only, and the next call starts clean."""
    forged = [b"garbage", b"\xff\xff\xff\xff", b"[" * 3000, b"{}", b'{"done": 1}', b"5", b'{"a": 1']
    for body in forged:
        frame = struct.pack(">I", len(body)) + body
        result = call(f"import os, time; os.write(3, {frame!r}); time.sleep(0.5); print(1)")
        assert result.status is ToolStatus.CRASH and result.state_lost
        assert "its session's channel" in last_line(result.stderr)
        assert call("print(2)").stdout == "2\n"
    assert run(executor, "print(3)").stdout == "3\n"


def test_report_forged_for_another_call_is_not_believed(executor, call):
    early = json.dumps({"done": 10**6, "status": 0, "peak": 0}).encode()
    frame = struct.pack(">I", len(early)) + early
    assert call(f"import os; os.write(3, {frame!r}); print(1)").status is ToolStatus.CRASH


def test_calls_of_a_session_run_one_after_the_other_and_in_order(executor, call):
    futures = [
        executor.submit(f"import time; time.sleep(0.05); print({i})", session="ordered")
        for i in range(6)
    ]
    others = executor.submit("print('other')")
    assert others.result(timeout=60).stdout == "other\n"
    assert [future.result(timeout=60).stdout for future in futures] == [f"{i}\n" for i in range(6)]
    executor.end_session("ordered")


def test_canceled_call_of_a_session_does_not_hold_up_the_next(executor):
    first = executor.submit("x = 1; import time; time.sleep(60)", timeout=60, session="canceled")
    second, third = (executor.submit("print('x' in globals())", session="canceled") for _ in "ab")
    time.sleep(0.3)
    assert second.cancel() and first.cancel()
    result = third.result(timeout=60)
    assert result.stdout == "False\n" and result.state_lost
    executor.end_session("canceled")


def test_ended_session_starts_anew_without_a_word(executor):
    assert run(executor, "x = 1", session="ended").status is ToolStatus.OK
    executor.end_session("ended")
    result = run(executor, "print('x' in globals())", session="ended")
    assert result.stdout == "False\n" and not result.state_lost
    executor.end_session("ended")
    executor.end_session("never begun")


def test_sessions_beyond_the_bound_cost_the_longest_idle_one():
    with PythonExecutor(preload=(), max_running=1, max_sessions=2) as executor:
        for name in "abc":
            assert not run(executor, f"x = {name!r}", session=name).state_lost
        for name, lost in [("c", False), ("b", False), ("a", True), ("c", True)]:
            result = run(executor, "print(globals().get('x'))", session=name)
            assert (result.stdout, result.state_lost) == ("None\n" if lost else f"{name}\n", lost)
        time.sleep(0.3)
        assert len(descendants(zygote(executor))) <= 3  # two sessions, one child that is ready


@pytest.mark.slow
def test_idle_session_is_ended_and_the_next_call_is_told():
    with PythonExecutor(preload=(), max_running=1, session_idle_seconds=0.2) as executor:
        run(executor, "x = 1", session="a")
        time.sleep(2.0)
        result = run(executor, "print('x' in globals())", session="a")
        assert result.stdout == "False\n" and result.state_lost


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "while True: time.sleep(1e-3); threading.Thread(target=time.sleep, args=(60,)).start()",
    ],
)
def test_session_that_is_busy_between_its_calls_is_ended(call, body):
    code = f"import threading, time\nthreading.stack_size(1 << 16)\ndef late():\n    {body}\n"
    assert call(code + "threading.Thread(target=late, daemon=True).start()").status is ToolStatus.OK
    for seconds in (1.5, 3.0, 6.0, 12.0):  # a call begins the count of an idle session anew
        time.sleep(seconds)
        if call("print(1)").state_lost:
            return
    raise AssertionError("the session was left alone")


def test_sessions_are_lost_with_the_processes_and_told():
    """Our failure for the call that ran, `state_lost` for the others."""
    for victim in (zygote, supervisor):
        with PythonExecutor(preload=(), max_running=2) as executor:
            run(executor, "x = 1", session="idle")
            running = executor.submit("import time; time.sleep(60)", timeout=60, session="busy")
            time.sleep(0.3)
            os.kill(victim(executor), signal.SIGKILL)
            assert running.result(timeout=60).status is ToolStatus.INFRA_ERROR
            result = run(executor, "print('x' in globals())", session="idle")
            assert result.stdout == "False\n" and result.state_lost


def test_session_that_is_no_string_raises(executor):
    with pytest.raises(TypeError, match="session must be a str or None"):
        executor.submit("print(1)", session=5)
