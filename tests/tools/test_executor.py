"""Results of calls of the Python tool, and the options of a caller."""

from __future__ import annotations

import os
import re
import sys

import pytest

from gtpo_jax.tools import PythonExecutor, ToolLimits, render_tool_result
from gtpo_jax.types import ToolStatus
from tests.tools import endings
from tests.tools.calls import last_line, linux_only, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executor():
    with PythonExecutor(preload=(), max_running=2) as executor:
        yield executor


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors are not chosen here")
def test_calls_run_at_a_time_are_as_many_as_the_processors_that_are_left():
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with PythonExecutor(preload=()) as executor:
            assert executor._settings["max_running"] == 1
    finally:
        os.sched_setaffinity(0, processors)


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
    """Each way to end has one stated result."""
    result = run(executor, "print('before', flush=True)\n" + code)
    assert (result.status, result.stdout) == (status, "before\n")
    assert last_line(result.stderr) == stderr


def test_code_with_a_syntax_error_points_at_it(executor):
    result = run(executor, "x = 1\ny = = 2")
    assert (result.status, result.stdout) == (ToolStatus.ERROR, "")
    lines = result.stderr.splitlines()
    assert lines[0] == '  File "<tool>", line 2' and lines[-1] == "SyntaxError: invalid syntax"


def test_warnings_on_stderr_exit_zero_keep_stdout(executor):
    result = run(executor, "import warnings; print(5); warnings.warn('old')")
    assert (result.status, result.stdout) == (ToolStatus.OK, "5\n")
    assert "UserWarning: old" in result.stderr
    assert render_tool_result(result) == "5"


def test_traceback_shows_the_frames_of_the_code_alone(executor):
    """No path of the host, whatever library raised."""
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


def test_traceback_counts_lines_as_the_compiler_does(executor):
    result = executor.submit("a = '\f\u2028'\r\nb = 1\n\f\nraise ValueError(a)").result(60)
    assert result.stderr.splitlines()[1:3] == [
        '  File "<tool>", line 4, in <module>',
        "    raise ValueError(a)",
    ]


def test_interrupt_of_the_code_itself_is_an_exception(executor):
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
    result = run(executor, code)
    assert result.status is ToolStatus.ERROR
    assert last_line(result.stderr) == "KeyboardInterrupt"


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
        ("print('\\f\\u2028' == '\f\u2028')", "True\n"),
        ("print(1)\r\nprint(2)\r\n", "1\n2\n"),
    ],
)
def test_code_of_any_form_is_executed_unmodified(executor, code, stdout):
    """No wrapping, no indentation, no last line printed, no ban of words."""
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
    """Hashes, order of sets, random numbers, texts of errors do not depend on the process."""
    code = """\
        import random
        print({"a", "b", "c", "d", "e"}, hash("word"), random.random())
        print(object(), flush=True)
        raise ValueError({"x", "y", "z"})
        """
    here = [run(executor, code) for _ in range(3)]
    with PythonExecutor(preload=(), max_running=1) as other:
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
    with PythonExecutor(preload=(), max_running=1) as executor:
        assert run(executor, leave).status is ToolStatus.OK
        assert run(executor, look).stdout == "False\n"


def test_environment_of_the_trainer_is_not_visible(monkeypatch):
    monkeypatch.setenv("API_KEY", "hunter2")
    with PythonExecutor(preload=(), max_running=1) as executor:
        assert run(executor, "import os; print(os.environ.get('API_KEY'))").stdout == "None\n"


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
        PythonExecutor(preload=(), max_running=max_running)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_queued": -1}, "max_queued must be an int of at least 0"),
        ({"max_sessions": 1}, "max_sessions must be an int of at least 2"),
        ({"session_idle_seconds": 0}, "session_idle_seconds must be positive"),
        ({"preload": ("no_such_package",)}, "preload names 'no_such_package'.*install it"),
        ({"preload": ("os.path",)}, "preload names 'os.path', which is no top-level module"),
        ({"allow": ("fs_raed",)}, "allow must be .* names among fs_read.*; got fs_raed"),
        ({"allow": "fs_read"}, "allow must be a collection"),
    ],
)
def test_executor_options_out_of_range_raise_before_anything_starts(options, error):
    with pytest.raises(ValueError, match=error):
        PythonExecutor(max_running=2, **{"preload": (), **options})


def test_executor_whose_supervisor_does_not_start_says_so(monkeypatch):
    monkeypatch.setattr("gtpo_jax.tools.sandbox.wire.COMMAND", (sys.executable, "-c", "pass"))
    with pytest.raises(RuntimeError, match="supervisor does not start"):
        PythonExecutor(preload=(), max_running=2)


def test_preload_that_fails_to_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "fails_to_import.py").write_text("raise ValueError('as it must')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"do not start: .*as it must"):
        PythonExecutor(preload=("fails_to_import",), max_running=1)


# Packages.


def test_preloaded_packages_work_and_start_alike_in_every_call():
    """NumPy's global generator, too."""
    code = """\
        import numpy as np, sympy
        print(np.random.rand(), np.linalg.det(np.eye(3)), sympy.solve("x**2 - 2"))
        """
    with PythonExecutor(max_running=2) as executor:
        texts = [run(executor, code).stdout for _ in range(3)]
        large = run(executor, "import numpy as np; np.ones(10**9)")
    assert len(set(texts)) == 1 and texts[0].endswith("1.0 [-sqrt(2), sqrt(2)]\n")
    assert large.status is ToolStatus.MEMORY


def test_package_that_is_not_asked_for_is_not_there(executor):
    assert last_line(run(executor, "import jax").stderr).startswith("ModuleNotFoundError")


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("wall_seconds", 0, ValueError),
        ("wall_seconds", "5", TypeError),
        ("cpu_seconds", 0.5, TypeError),
        ("cpu_seconds", 0, ValueError),
        ("memory_bytes", 1 << 20, ValueError),
        ("runaway_bytes", 100, ValueError),
        ("threads", 0, ValueError),
        ("scratch_files", 1, ValueError),
        ("open_files", True, TypeError),
    ],
)
def test_limits_out_of_range_raise_and_name_the_field(field, value, error):
    with pytest.raises(error, match=field):
        ToolLimits(**{field: value})


# What the policy reads.


def read(result):
    return re.sub(r"^ *[~^]+\n", "", render_tool_result(result), flags=re.MULTILINE)


@pytest.mark.parametrize("name", endings.ENDINGS)
def test_ending_is_told(executor, name):
    code, observation = endings.ENDINGS[name]
    assert read(run(executor, code)) == observation


@linux_only
@pytest.mark.parametrize("name", endings.PROCESSES)
def test_processes_are_refused_by_name_and_threads_are_not(executor, name):
    code, observation = endings.PROCESSES[name]
    assert read(run(executor, code)) == observation


def test_ending_of_a_call_in_a_session_is_told_as_that_of_a_single_one(executor):
    for name in ("message_of_lines", "group", "exit_status", "exit_message", "stderr_alone"):
        code, observation = endings.ENDINGS[name]
        assert read(run(executor, code, session="endings")) == observation


def test_exception_whose_notes_fail_is_named(executor):
    code = """\
        class Bad(Exception):
            @property
            def __notes__(self): 1 / 0
        raise Bad(1)
        """
    assert read(run(executor, code)).startswith("Bad")


def test_exception_without_end_is_told_by_its_beginning_and_its_end(executor):
    result = run(executor, "raise ValueError('a' * 10**7 + 'z' * 10**7)")
    assert result.status is ToolStatus.ERROR and len(result.stderr) < 17_000
    text = render_tool_result(result)
    assert text.startswith("ValueError: aaa") and text.endswith("zzz") and len(text) < 5000
    assert re.search(r"a\n\[\d+ bytes truncated\]\nz", text)


@linux_only
@pytest.mark.parametrize("name", endings.STOPPED)
def test_output_of_a_stopped_program_is_kept(name):
    limit, code, observation = endings.STOPPED[name]
    limits = {
        "time": ToolLimits(wall_seconds=1.0, cpu_seconds=60),
        "cpu": ToolLimits(wall_seconds=60.0, cpu_seconds=1),
        "output": ToolLimits(wall_seconds=60.0, output_bytes=30, runaway_bytes=1_000_003),
        "memory": ToolLimits(wall_seconds=60.0),
    }[limit]
    with PythonExecutor(preload=(), max_running=1, limits=limits) as executor:
        assert read(run(executor, code)) == observation
