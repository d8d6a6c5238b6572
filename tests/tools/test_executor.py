"""The pool of worker processes that runs the policy's code."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent import futures

import pytest

from gtpo_jax.tools import PythonExecutor, ToolLimits, render_tool_result
from gtpo_jax.types import ToolStatus

ROOT = pathlib.Path(__file__).parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the platform has no such limit")


@pytest.fixture(scope="module")
def executor():
    with PythonExecutor(max_running=2) as executor:
        yield executor


def run(executor, code, timeout=None):
    return executor.submit(textwrap.dedent(code), timeout=timeout).result(timeout=60)


def alive(pid):
    """A process that still runs; one that has ended but was not reaped does not count."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone_within(pids, seconds=5.0):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, pids))


def last_line(text):
    return text.rstrip("\n").rpartition("\n")[2]


# Results.


def test_call_that_prints_returns_its_output_and_measurements(executor):
    result = run(executor, "import sys; print(2**10); print('note', file=sys.stderr)")
    assert (result.status, result.stdout, result.stderr) == (ToolStatus.OK, "1024\n", "note\n")
    assert result.truncated_bytes == 0
    assert 0 < result.wall_seconds < 5 and 0 <= result.cpu_seconds < 5
    assert 1 << 20 < result.peak_bytes < 1 << 28


def test_call_that_computes_reports_its_cpu_time(executor):
    result = run(executor, "import time\nwhile time.process_time() < 0.2: pass")
    assert 0.19 <= result.cpu_seconds <= 1.0 and result.wall_seconds >= 0.19


@pytest.mark.parametrize(
    ("code", "status", "stderr"),
    [
        ("import sys; sys.exit()", ToolStatus.OK, ""),
        ("import sys; sys.exit(0)", ToolStatus.OK, ""),
        ("exit()", ToolStatus.OK, ""),
        ("raise SystemExit(256)", ToolStatus.OK, ""),
        ("import sys; sys.exit(3)", ToolStatus.ERROR, "exit status 3"),
        ("import sys; sys.exit('no solution')", ToolStatus.ERROR, "no solution"),
        ("import os; os._exit(7)", ToolStatus.ERROR, "exit status 7"),
        ("1 / 0", ToolStatus.ERROR, "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", ToolStatus.ERROR, "KeyboardInterrupt"),
        ("input()", ToolStatus.ERROR, "EOFError: EOF when reading a line"),
        ("import os; os.abort()", ToolStatus.CRASH, "killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", ToolStatus.CRASH, "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", ToolStatus.CRASH, "killed by signal 40"),
    ],
)
def test_call_that_ends_in_some_way_gets_the_status_of_it(executor, code, status, stderr):
    """T-74: each way to end has one stated result."""
    result = run(executor, "print('before', flush=True)\n" + code)
    assert (result.status, result.stdout) == (status, "before\n")
    assert last_line(result.stderr) == stderr


def test_code_with_a_syntax_error_points_at_it(executor):
    result = run(executor, "x = 1\ny = = 2")
    assert (result.status, result.stdout) == (ToolStatus.ERROR, "")
    lines = result.stderr.splitlines()
    assert lines[0] == '  File "<tool>", line 2' and lines[-1] == "SyntaxError: invalid syntax"


def test_warnings_on_stderr_exit_zero_keep_stdout(executor):
    """T-73"""
    result = run(executor, "import warnings; print(5); warnings.warn('old')")
    assert (result.status, result.stdout) == (ToolStatus.OK, "5\n")
    assert "UserWarning: old" in result.stderr
    assert render_tool_result(result) == "5"


def test_traceback_shows_the_frames_of_the_code_alone(executor):
    """T-76: no path of the host, whatever library raised."""
    code = """\
        import json
        def load(text):
            return json.loads(text)
        try:
            load("{")
        except ValueError:
            raise RuntimeError("bad")
        """
    lines = run(executor, code).stderr.splitlines()
    frames = [line.strip() for line in lines if line.startswith("  File")]
    assert frames == [
        'File "<tool>", line 5, in <module>',
        'File "<tool>", line 3, in load',
        'File "<tool>", line 7, in <module>',
    ]
    assert '    raise RuntimeError("bad")' in lines and lines[-1] == "RuntimeError: bad"


def test_end_of_code_waits_for_threads_runs_exit_handlers_and_flushes(executor):
    code = """\
        import atexit, threading, time
        atexit.register(print, "exit handler")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
        print("main", end=" ")
        """
    assert run(executor, code).stdout == "main thread\nexit handler\n"


def test_broken_standard_streams_stay_the_problem_of_the_code(executor):
    result = run(executor, "import sys; print(1, flush=True); sys.stdout = None; sys.stderr = 5; x")
    assert (result.status, result.stdout) == (ToolStatus.ERROR, "1\n")
    assert last_line(result.stderr) == "NameError"
    assert run(executor, "import os; os.close(1); os.close(2)").status is ToolStatus.OK


# The code is executed as it stands.


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        (
            "from __future__ import annotations\ndef f(a: b): pass\nprint(f.__annotations__)",
            "{'a': 'b'}\n",
        ),
        ("def f(a: int): pass\nprint(f.__annotations__)", "{'a': <class 'int'>}\n"),
        ('print("""a\n  b\n""")', "a\n  b\n\n"),
        ("x = 1", ""),
        ("2 + 2", ""),
        ("# from the input( isinstance( type(\nprint(type(1))", "<class 'int'>\n"),
        ("print(__name__)", "__main__\n"),
        ("import __main__; y = 3; print(__main__.y)", "3\n"),
        ("print('é∑𝄞')", "é∑𝄞\n"),
        ("print(1)\r\nprint(2)\r\n", "1\n2\n"),
    ],
)
def test_code_of_any_form_is_executed_unmodified(executor, code, stdout):
    """T-75: no wrapping, no indentation, no last line printed, no ban of words."""
    result = executor.submit(code).result(timeout=60)
    assert (result.status, result.stdout, result.stderr) == (ToolStatus.OK, stdout, "")


@pytest.mark.parametrize(
    ("code", "error"), [("a = '\0'", "null byte"), ("a = '\ud800'", "surrogates not allowed")]
)
def test_code_that_is_no_source_text_yields_an_error(executor, code, error):
    result = run(executor, code)
    assert result.status is ToolStatus.ERROR and error in last_line(result.stderr)
    assert run(executor, "print(1)").stdout == "1\n"


def test_code_of_a_megabyte_is_executed(executor):
    result = run(executor, "x = 1" + " # filler" * 120_000 + "\nprint(x)", timeout=20)
    assert (result.status, result.stdout) == (ToolStatus.OK, "1\n")


def test_equal_code_on_different_workers_gives_equal_text(executor):
    """T-76: hashes, order of sets, random numbers and texts of errors do not depend on the process."""
    code = """\
        import random
        print({"a", "b", "c", "d", "e"}, hash("word"), random.random())
        print(object(), flush=True)
        raise ValueError({"x", "y", "z"})
        """
    here = [run(executor, code) for _ in range(3)]
    with PythonExecutor(max_running=1) as other:
        results = [*here, run(other, code)]
    assert len({render_tool_result(r) for r in results}) == 1
    assert len({r.stderr for r in results}) == 1
    assert results[0].stdout.startswith("{") and "0x..." in render_tool_result(results[0])


@pytest.mark.parametrize(
    ("leave", "look"),
    [
        ("import math; math.pi = 3", "import math; print(math.pi == 3)"),
        ("import builtins; builtins.x = 1", "import builtins; print(hasattr(builtins, 'x'))"),
        ("import sys; sys.modules['secret'] = sys", "import sys; print('secret' in sys.modules)"),
        ("import os; os.environ['SECRET'] = '1'", "import os; print('SECRET' in os.environ)"),
        ("open('note', 'w').write('a')", "import os; print(os.path.exists('note'))"),
        ("import os; os.mkdir('d', 0)", "import os; print(os.listdir() != [])"),
        ("x = 1", "print('x' in globals())"),
        ("import os; os.umask(0)", "import os; print(os.umask(0) == 0)"),
    ],
)
def test_state_left_by_a_call_is_gone_in_the_next(leave, look):
    """T-76"""
    with PythonExecutor(max_running=1) as executor:
        assert run(executor, leave).status is ToolStatus.OK
        assert run(executor, look).stdout == "False\n"


def test_environment_of_the_trainer_is_not_visible(monkeypatch):
    monkeypatch.setenv("API_KEY", "hunter2")
    with PythonExecutor(max_running=1) as executor:
        assert run(executor, "import os; print(os.environ.get('API_KEY'))").stdout == "None\n"


# Limits.


@pytest.mark.parametrize("fd", [1, 2])
def test_output_larger_than_a_pipe_is_read_while_it_runs(executor, fd):
    """T-71: neither a deadlock nor a time-out; the cap applies while reading."""
    result = run(executor, f"import os\nfor c in b'abc': os.write({fd}, bytes([c]) * 50_000)")
    text = result.stdout if fd == 1 else result.stderr
    assert result.status is ToolStatus.OK
    assert result.truncated_bytes == 150_000 - 16 * 1024
    marker = f"\n[{result.truncated_bytes} bytes truncated]\n"
    assert text == "a" * 8 * 1024 + marker + "c" * 8 * 1024


def test_output_beyond_its_cap_keeps_head_and_tail():
    with PythonExecutor(max_running=1, limits=ToolLimits(output_bytes=11)) as executor:
        whole = run(executor, "print('0123456789')")
        cut = run(executor, "print('0123456789ab')")
    assert (whole.stdout, whole.truncated_bytes) == ("0123456789\n", 0)
    assert (cut.stdout, cut.truncated_bytes) == ("012345\n[2 bytes truncated]\n89ab\n", 2)


def test_output_without_end_is_stopped_early_and_the_same_each_time(executor):
    """T-74, T-76: what is kept does not depend on how fast the call was killed."""
    code = "i = 0\nwhile True:\n    print(i)\n    i += 1"
    results = [run(executor, code, timeout=20) for _ in range(2)]
    assert [r.status for r in results] == [ToolStatus.OUTPUT_LIMIT] * 2
    assert results[0].stdout == results[1].stdout
    assert results[0].truncated_bytes == (1 << 20) - 16 * 1024
    assert all(r.wall_seconds < 10 for r in results)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
def test_call_beyond_its_timeout_is_ended(executor, code):
    """T-74"""
    result = run(executor, code, timeout=0.4)
    assert result.status is ToolStatus.TIMEOUT
    assert 0.4 <= result.wall_seconds < 3
    assert render_tool_result(result) == "Time limit exceeded."


def test_timeout_of_a_call_replaces_the_limit_in_both_directions():
    with PythonExecutor(max_running=1, limits=ToolLimits(wall_seconds=0.3)) as executor:
        sleep = "import time; time.sleep(0.6)"
        assert run(executor, sleep).status is ToolStatus.TIMEOUT
        assert run(executor, sleep, timeout=20.0).status is ToolStatus.OK


@linux_only
@pytest.mark.parametrize(
    "prefix", ["", "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"]
)
def test_cpu_beyond_its_limit_is_ended_even_if_the_signal_is_ignored(prefix):
    """T-74"""
    with PythonExecutor(max_running=1, limits=ToolLimits(cpu_seconds=1)) as executor:
        result = run(executor, prefix + "while True: pass", timeout=20)
    assert result.status is ToolStatus.CPU_LIMIT
    assert 0.5 <= result.cpu_seconds <= 2.5  # a virtual machine may count coarsely


@linux_only
@pytest.mark.parametrize(
    "code", ["bytearray(10**10)", "x = []\nwhile True: x.append(bytearray(10**6))"]
)
def test_memory_beyond_its_limit_has_its_own_status(executor, code):
    """T-74: an allocation of 10 GB."""
    result = run(executor, "print('before')\n" + code)
    assert (result.status, result.stdout) == (ToolStatus.MEMORY, "before\n")
    assert result.peak_bytes < 600 << 20
    assert render_tool_result(result) == "before\nMemory limit exceeded."


@linux_only
def test_memory_error_that_the_code_handles_is_no_failure(executor):
    code = "try:\n    bytearray(10**10)\nexcept MemoryError:\n    print('too large')"
    assert run(executor, code).stdout == "too large\n"
    assert run(executor, code + "\nraise KeyError(1)").status is ToolStatus.ERROR


def test_file_and_descriptor_limits_are_errors_of_the_code():
    """T-74"""
    with PythonExecutor(
        max_running=1, limits=ToolLimits(file_bytes=1000, open_files=20)
    ) as executor:
        large = run(
            executor,
            "f = open('f', 'wb', 0)\nprint(f.write(b'x' * 900)); f.write(b'y' * 900); f.write(b'z')",
        )
        many = run(executor, "fs = []\nwhile len(fs) < 50: fs.append(open('f', 'w'))")
    assert large.stdout == "900\n" and "File too large" in last_line(large.stderr)
    assert "Too many open files" in last_line(many.stderr)


@linux_only
def test_fork_bomb_is_ended_soon_and_leaves_nothing(executor):
    """T-74"""
    code = "import os\nprint(os.getppid(), flush=True)\nwhile True: os.fork()"
    result = run(executor, code, timeout=30)
    assert result.status is ToolStatus.CRASH and result.wall_seconds < 15
    assert last_line(result.stderr) == "killed: more than 8 processes"
    worker = int(result.stdout.split()[0])
    assert pathlib.Path(f"/proc/{worker}/task/{worker}/children").read_text() == ""


def test_deleted_working_directory_affects_that_call_alone(executor):
    """T-74"""
    code = "import os, shutil; shutil.rmtree(os.path.dirname(os.getcwd())); print('deleted')"
    assert run(executor, code).stdout == "deleted\n"
    assert run(executor, "open('f', 'w').close(); print('works')").stdout == "works\n"


# Processes.


FORK = """\
    import os, time
    if os.fork() == 0:
        {first}
        print(os.getpid(), flush=True)
        time.sleep(60)
    time.sleep({seconds})
    os._exit(0)
    """


@pytest.mark.parametrize("first", ["pass", pytest.param("os.setsid()", marks=linux_only)])
@pytest.mark.parametrize(("seconds", "status"), [(60, ToolStatus.TIMEOUT), (0.3, ToolStatus.OK)])
def test_grandchild_dies_with_its_call(executor, first, seconds, status):
    """T-72: after a time-out and after a normal end, although it holds the output open."""
    result = run(executor, FORK.format(first=first, seconds=seconds), timeout=1.0)
    assert result.status is status
    assert result.wall_seconds < 5
    assert not alive(int(result.stdout))


def test_hung_call_does_not_delay_others(executor):
    """T-70: neither `submit` nor the other calls wait for it."""
    begin = time.monotonic()
    hung = executor.submit("import time; time.sleep(60)", timeout=3.0)
    others = [executor.submit(f"print({i})") for i in range(20)]
    assert time.monotonic() - begin < 1.0
    assert [f.result(timeout=60).stdout for f in others] == [f"{i}\n" for i in range(20)]
    assert not hung.done()
    assert hung.result(timeout=60).status is ToolStatus.TIMEOUT


def test_calls_from_many_threads_get_their_own_results(executor):
    """T-77: many more submitters than places; each call takes one place and gives it back."""
    with futures.ThreadPoolExecutor(16) as threads:
        texts = list(threads.map(lambda i: run(executor, f"print({i})").stdout, range(100)))
    assert texts == [f"{i}\n" for i in range(100)]


def test_running_calls_are_as_many_as_allowed_and_no_more(executor):
    """T-77"""
    code = "import time; a = time.monotonic(); time.sleep(0.25); print(a, time.monotonic())"
    calls = [executor.submit(code) for _ in range(6)]
    spans = [tuple(map(float, f.result(timeout=60).stdout.split())) for f in calls]
    running = [sum(a <= begin < b for a, b in spans) for begin, _ in spans]
    assert max(running) == 2


def test_worker_killed_by_its_call_is_replaced(tmp_path):
    """T-77: the call ends as our failure, not as an exception, and what it started is ended."""
    note = tmp_path / "note.txt"
    code = f"""\
        import os, time
        pid = os.fork()
        if pid:
            with open({str(note)!r}, "w") as file:
                file.write(f"{{pid}} {{os.getpid()}} {{os.getppid()}}")
            os.kill(os.getppid(), 9)
        time.sleep(60)
        """
    with PythonExecutor(max_running=1) as executor:
        for _ in range(2):
            failed = run(executor, code)
            assert failed.status is ToolStatus.INFRA_ERROR and "worker died" in failed.stderr
            pids = [int(word) for word in note.read_text().split()]
            assert len(pids) == 3 and gone_within(pids)
            assert run(executor, "print(1)").stdout == "1\n"


def test_worker_that_hangs_is_replaced_after_the_guard_time():
    limits = ToolLimits(wall_seconds=0.2, guard_seconds=0.3)
    with PythonExecutor(max_running=1, limits=limits) as executor:
        stopped = run(executor, "import os; os.kill(os.getppid(), 19)")
        assert stopped.status is ToolStatus.INFRA_ERROR and "in time" in stopped.stderr
        assert run(executor, "print(1)", timeout=20).stdout == "1\n"


def test_worker_that_died_while_idle_costs_no_call():
    with PythonExecutor(max_running=1) as executor:
        worker = int(run(executor, "import os; print(os.getppid())").stdout)
        os.kill(worker, signal.SIGKILL)
        assert gone_within([worker])
        assert run(executor, "print(1)").stdout == "1\n"


def test_reply_forged_on_every_descriptor_is_only_output():
    messages = [{"id": 1, "group": 0}, {"id": 1, "status": "ok", "stdout": "forged"}]
    bodies = [json.dumps(message).encode() for message in messages]
    frames = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
    code = f"""\
        import os
        for fd in range(1024):
            try:
                os.write(fd, {frames!r})
            except OSError:
                pass
        print("real")
        """
    with PythonExecutor(max_running=1) as executor:
        result = run(executor, code)
        assert result.status is ToolStatus.OK and result.stdout.endswith("real\n")
        assert run(executor, "print(1)").stdout == "1\n"


def test_trainer_never_forks(monkeypatch):
    """JAX runs threads in the trainer, and a fork of those hangs now and then."""

    def fork():
        raise AssertionError("the trainer forked")

    monkeypatch.setattr(os, "fork", fork)
    with PythonExecutor(max_running=1) as executor:
        assert run(executor, "print(1)").stdout == "1\n"


# Closing.

NOTE_PIDS = """
import os, time
with open({path!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{os.getppid()}}")
time.sleep(60)
"""


def test_close_ends_calls_and_processes_and_removes_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    executor = PythonExecutor(max_running=2)
    notes = [tmp_path / f"{i}.txt" for i in range(2)]
    running = [executor.submit(NOTE_PIDS.format(path=str(note)), timeout=60) for note in notes]
    queued = executor.submit("print(1)")
    while not all(note.exists() and " " in note.read_text() for note in notes):
        time.sleep(0.01)
    pids = [int(word) for note in notes for word in note.read_text().split()]
    assert all(map(alive, pids))
    begin = time.monotonic()
    executor.close()
    assert time.monotonic() - begin < 10
    assert gone_within(pids, seconds=1.0)
    assert [f.result(timeout=1).status for f in running] == [ToolStatus.INFRA_ERROR] * 2
    assert queued.cancelled()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.txt", "1.txt"]
    executor.close()
    with pytest.raises(RuntimeError, match="submit after close"):
        executor.submit("print(1)")


def test_trainer_killed_leaves_no_process(tmp_path):
    note = tmp_path / "note.txt"
    script = f"""\
        import os, signal, time
        from gtpo_jax.tools import PythonExecutor
        executor = PythonExecutor(max_running=2)
        executor.submit({NOTE_PIDS.format(path=str(note))!r}, timeout=60)
        while not (os.path.exists({str(note)!r}) and " " in open({str(note)!r}).read()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    trainer = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, timeout=60)
    assert trainer.returncode == -signal.SIGKILL
    assert gone_within([int(word) for word in note.read_text().split()])


# Arguments.


@pytest.mark.parametrize("code", [b"print(1)", None, 5])
def test_submit_code_that_is_no_string_raises(executor, code):
    with pytest.raises(TypeError, match="code must be a str"):
        executor.submit(code)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_submit_timeout_that_is_no_duration_raises(executor, timeout):
    with pytest.raises(ValueError, match="timeout must be positive and finite"):
        executor.submit("print(1)", timeout=timeout)


@pytest.mark.parametrize("max_running", [0, -1, 1.5, True])
def test_executor_without_places_raises(max_running):
    with pytest.raises(ValueError, match="max_running must be an int of at least 1"):
        PythonExecutor(max_running=max_running)


def test_executor_whose_workers_do_not_start_says_so(monkeypatch):
    monkeypatch.setattr("gtpo_jax.tools.executor._COMMAND", [sys.executable, "-c", "pass"])
    with pytest.raises(RuntimeError, match="do not start: the worker died"):
        PythonExecutor(max_running=2)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("wall_seconds", 0, ValueError),
        ("wall_seconds", "5", TypeError),
        ("cpu_seconds", 0.5, TypeError),
        ("cpu_seconds", 0, ValueError),
        ("memory_bytes", 1 << 20, ValueError),
        ("runaway_bytes", 100, ValueError),
        ("processes", 0, ValueError),
        ("open_files", True, TypeError),
    ],
)
def test_limits_out_of_range_raise_and_name_the_field(field, value, error):
    with pytest.raises(error, match=field):
        ToolLimits(**{field: value})
