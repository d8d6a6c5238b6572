"""Limits of one call of the Python tool, and its result when it exceeds them."""

from __future__ import annotations

import pytest

from gtpo_jax.tools import PythonExecutor, ToolLimits, render_tool_result
from gtpo_jax.types import ToolStatus
from tests.tools.calls import descendants, last_line, linux_only, run, supervisor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executor():
    with PythonExecutor(preload=(), max_running=2) as executor:
        yield executor


@pytest.mark.parametrize("fd", [1, 2])
def test_output_larger_than_a_pipe_is_read_while_it_runs(executor, fd):
    """Neither a deadlock nor a time-out; the cap applies while reading."""
    result = run(executor, f"import os\nfor c in b'abc': os.write({fd}, bytes([c]) * 50_000)")
    text = result.stdout if fd == 1 else result.stderr
    assert result.status is ToolStatus.OK
    assert result.truncated_bytes == 150_000 - 16 * 1024
    marker = f"\n[{result.truncated_bytes} bytes truncated]\n"
    assert text == "a" * 8 * 1024 + marker + "c" * 8 * 1024


def test_output_beyond_its_cap_keeps_head_and_tail():
    with PythonExecutor(preload=(), max_running=1, limits=ToolLimits(output_bytes=11)) as executor:
        whole = run(executor, "print('0123456789')")
        cut = run(executor, "print('0123456789ab')")
    assert (whole.stdout, whole.truncated_bytes) == ("0123456789\n", 0)
    assert (cut.stdout, cut.truncated_bytes) == ("012345\n[2 bytes truncated]\n89ab\n", 2)


def test_output_without_end_is_stopped_early_and_the_same_each_time(executor):
    """The output that is kept does not depend on how fast the call was killed."""
    code = "i = 0\nwhile True:\n    print(i)\n    i += 1"
    results = [run(executor, code, timeout=20) for _ in range(2)]
    assert [r.status for r in results] == [ToolStatus.OUTPUT_LIMIT] * 2
    assert results[0].stdout == results[1].stdout
    # What is kept of the MiB that was read are whole lines, nearly all that there is room for.
    head, tail = results[0].stdout.split(f"[{results[0].truncated_bytes} bytes truncated]\n")
    kept = (1 << 20) - results[0].truncated_bytes
    assert len(head) + len(tail) == kept and 16 * 1024 - 20 < kept <= 16 * 1024
    numbers = [*map(int, head.split())]
    assert numbers == [*range(len(numbers))] and head == "".join(f"{i}\n" for i in numbers)
    assert tail.startswith(f"{int(tail.split()[0])}\n") and len(tail.split()[0]) == 6
    assert all(r.wall_seconds < 10 for r in results)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
def test_call_beyond_its_timeout_is_ended(executor, code):
    result = run(executor, code, timeout=0.4)
    assert result.status is ToolStatus.TIMEOUT
    assert 0.4 <= result.wall_seconds < 3
    assert render_tool_result(result) == "Time limit exceeded."


def test_timeout_of_a_call_replaces_the_limit_in_both_directions():
    with PythonExecutor(preload=(), max_running=1, limits=ToolLimits(wall_seconds=0.3)) as executor:
        sleep = "import time; time.sleep(0.6)"
        assert run(executor, sleep).status is ToolStatus.TIMEOUT
        assert run(executor, sleep, timeout=20.0).status is ToolStatus.OK


@linux_only
@pytest.mark.parametrize(
    "prefix", ["", "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"]
)
def test_cpu_beyond_its_limit_is_ended_even_if_the_signal_is_ignored(prefix):
    with PythonExecutor(preload=(), max_running=1, limits=ToolLimits(cpu_seconds=1)) as executor:
        result = run(executor, prefix + "while True: pass", timeout=20)
    assert result.status is ToolStatus.CPU_LIMIT
    assert 0.5 <= result.cpu_seconds <= 2.5  # a virtual machine may count coarsely


@linux_only
@pytest.mark.parametrize(
    "code", ["bytearray(10**10)", "x = []\nwhile True: x.append(bytearray(10**6))"]
)
def test_memory_beyond_its_limit_has_its_own_status(executor, code):
    """An allocation of 10 GB."""
    result = run(executor, "print('before')\n" + code)
    assert (result.status, result.stdout) == (ToolStatus.MEMORY, "before\n")
    assert result.peak_bytes < 700 << 20
    assert render_tool_result(result) == "before\nMemory limit exceeded."


@linux_only
def test_memory_error_that_the_code_handles_is_no_failure(executor):
    code = "try:\n    bytearray(10**10)\nexcept MemoryError:\n    print('too large')"
    assert run(executor, code).stdout == "too large\n"
    assert run(executor, code + "\nraise KeyError(1)").status is ToolStatus.ERROR


def test_file_and_descriptor_limits_are_errors_of_the_code():
    limits = ToolLimits(file_bytes=1000, open_files=20)
    with PythonExecutor(preload=(), max_running=1, limits=limits) as executor:
        large = run(
            executor,
            "f = open('f', 'wb', 0); print(f.write(b'x' * 900))\nwhile True: f.write(b'y' * 99)",
        )
        many = run(executor, "fs = []\nwhile len(fs) < 50: fs.append(open('f', 'w'))")
    assert large.stdout == "900\n" and "File too large" in last_line(large.stderr)
    assert "Too many open files" in last_line(many.stderr)


@linux_only
def test_thread_bomb_is_ended_soon():
    """`threads` is looked at while the call runs; address space alone allows far more."""
    code = """\
        import threading, time
        threading.stack_size(64 * 1024)
        print("before", flush=True)
        while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """
    with PythonExecutor(preload=(), max_running=1, limits=ToolLimits(threads=20)) as executor:
        result = run(executor, code, timeout=30)
        assert (result.status, result.stdout) == (ToolStatus.CRASH, "before\n")
        assert last_line(result.stderr) == "killed: more than 20 threads"
        assert result.wall_seconds < 10
        few = "import threading\nfor _ in range(15): threading.Thread(target=print).start()"
        assert run(executor, few).status is ToolStatus.OK


@linux_only
def test_fork_is_refused_and_leaves_nothing(executor):
    """A call is one process, so its end is the end of all that it started."""
    before = descendants(supervisor(executor))
    result = run(executor, "import os\nwhile True: os.fork()")
    assert result.status is ToolStatus.ERROR
    assert last_line(result.stderr) == "PermissionError: [Errno 1] Operation not permitted"
    assert len(descendants(supervisor(executor))) <= len(before) + 1  # the next ready child


@linux_only
def test_scratch_is_bounded_in_bytes_and_files_and_empty_for_the_next_call():
    limits = ToolLimits(scratch_bytes=1 << 20, scratch_files=50)
    fill = "n = 0\nwhile True:\n    open(f'{n}', 'w').write('x' * %d); n += 1"
    with PythonExecutor(preload=(), max_running=1, limits=limits) as executor:
        for size in (1 << 18, 0):
            result = run(executor, fill % size)
            assert "OSError: [Errno 28] No space left on device" in last_line(result.stderr)
            look = "import os; print(os.listdir('.'), os.statvfs('.').f_bfree * 4096)"
            assert run(executor, look).stdout == f"[] {1 << 20}\n"


def test_working_directory_that_code_takes_away_is_there_for_the_next(executor):
    code = """\
        import os, shutil
        os.mkdir("closed", 0)
        os.makedirs("a/b"); os.chdir("a/b"); shutil.rmtree(os.path.dirname(os.getcwd()))
        print("deleted")
        """
    assert run(executor, code).stdout == "deleted\n"
    assert run(executor, "open('f', 'w').close(); print('works')").stdout == "works\n"
