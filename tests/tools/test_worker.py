"""The worker processes behind the Python tool: what ends with a call, and what survives one."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent import futures

import pytest

from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import ToolStatus
from tests.tools.calls import ROOT, alive, gone_within, linux_only, run


@pytest.fixture(scope="module")
def executor():
    with PythonExecutor(max_running=2) as executor:
        yield executor


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
    hung = executor.submit("import time; time.sleep(60)", timeout=2.0)
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


def test_trainer_never_forks():
    """JAX runs threads in the trainer, and a fork of those hangs now and then."""
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))  # also told of `preexec_fn`
    with PythonExecutor(max_running=1) as executor:
        assert run(executor, "print(1)").stdout == "1\n"
    assert not forks


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


@pytest.mark.parametrize("victims", ["[os.getpid()]", "[worker, os.getpid()]"])
def test_trainer_killed_leaves_no_process(tmp_path, victims):
    """Alone, or at one moment with a worker, which then cannot end its call itself."""
    note = str(tmp_path / "note.txt")
    script = f"""\
        import os, signal, time
        from gtpo_jax.tools import PythonExecutor
        executor = PythonExecutor(max_running=2)
        executor.submit({NOTE_PIDS.format(path=note)!r}, timeout=60)
        while not (os.path.exists({note!r}) and " " in open({note!r}).read()):
            time.sleep(0.01)
        worker = int(open({note!r}).read().split()[1])
        for pid in {victims}:
            os.kill(pid, signal.SIGKILL)
        """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    trainer = subprocess.run(command, cwd=ROOT, env=environment, timeout=60)
    assert trainer.returncode == -signal.SIGKILL
    with open(note) as file:
        assert gone_within([int(word) for word in file.read().split()])
