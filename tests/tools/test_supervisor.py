"""The processes behind the Python tool: order, cancellation, recovery, and that nothing stays."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from concurrent import futures

import pytest

from gtpo_jax.tools import ExecutorBusy, PythonExecutor, ToolLimits, submit_when_free
from gtpo_jax.types import ToolStatus
from tests.tools.calls import (
    ROOT,
    descendants,
    gone_within,
    linux_only,
    run,
    supervisor,
    zygote,
)

pytestmark = [linux_only, pytest.mark.slow]  # where the processes are looked up in /proc

SLEEP = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def executor():
    with PythonExecutor(preload=(), max_running=2) as executor:
        yield executor


def wait_until_running(executor, count):
    """Until so many calls have a process that runs code: it has closed its way to be given some."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pids = descendants(zygote(executor))
        if sum(_has_begun(pid) for pid in pids) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} calls did not start")


def _has_begun(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd")) == 3
    except OSError:
        return False


# Many calls.


@pytest.mark.slow
def test_hung_call_does_not_delay_others(executor):
    """Neither `submit` nor the other calls wait for it."""
    begin = time.monotonic()
    hung = executor.submit(SLEEP, timeout=2.0)
    others = [executor.submit(f"print({i})") for i in range(20)]
    assert time.monotonic() - begin < 1.0
    assert [f.result(timeout=60).stdout for f in others] == [f"{i}\n" for i in range(20)]
    assert not hung.done()
    assert hung.result(timeout=60).status is ToolStatus.TIMEOUT


def test_calls_from_many_threads_get_their_own_results(executor):
    """Many more submitters than places; each call takes one place and gives it back."""
    with futures.ThreadPoolExecutor(16) as threads:
        texts = list(threads.map(lambda i: run(executor, f"print({i})").stdout, range(200)))
    assert texts == [f"{i}\n" for i in range(200)]


def test_running_calls_are_as_many_as_allowed_and_no_more(executor):
    code = "import time; a = time.monotonic(); time.sleep(0.25); print(a, time.monotonic())"
    calls = [executor.submit(code) for _ in range(6)]
    spans = [tuple(map(float, f.result(timeout=60).stdout.split())) for f in calls]
    running = [sum(a <= begin < b for a, b in spans) for begin, _ in spans]
    assert max(running) == 2


def test_calls_start_in_the_order_of_their_submission():
    code = "import time; print(time.monotonic())"
    with PythonExecutor(preload=(), max_running=1) as executor:
        calls = [executor.submit(code) for _ in range(20)]
        times = [float(call.result(timeout=60).stdout) for call in calls]
    assert times == sorted(times)


def test_full_queue_refuses_and_takes_again_once_there_is_room():
    with PythonExecutor(preload=(), max_running=1, max_queued=2) as executor:
        running = executor.submit(SLEEP, timeout=60)
        queued = [executor.submit("print(1)") for _ in range(2)]
        with pytest.raises(ExecutorBusy, match=r"3 calls run or wait.*max_queued"):
            executor.submit("print(2)")
        running.cancel()
        assert [call.result(timeout=60).stdout for call in queued] == ["1\n"] * 2
        assert run(executor, "print(3)").stdout == "3\n"


def test_who_can_wait_submits_more_than_the_queue_holds():
    with PythonExecutor(preload=(), max_running=1, max_queued=2) as executor:
        calls = [submit_when_free(executor, f"print({i})") for i in range(12)]
        assert [call.result(timeout=60).stdout for call in calls] == [f"{i}\n" for i in range(12)]


# Cancellation.


def test_canceled_call_ends_at_once_and_frees_its_place():
    with PythonExecutor(preload=(), max_running=1) as executor:
        running = executor.submit(SLEEP, timeout=60)
        queued = [executor.submit(f"print({i})") for i in range(3)]
        wait_until_running(executor, 1)
        assert queued[1].cancel() and running.cancel()
        begin = time.monotonic()
        assert [queued[i].result(timeout=60).stdout for i in (0, 2)] == ["0\n", "2\n"]
        assert time.monotonic() - begin < 10
        assert running.cancelled() and queued[1].cancelled()


def test_call_with_a_result_cannot_be_canceled(executor):
    call = executor.submit("print(1)")
    assert call.result(timeout=60).stdout == "1\n"
    assert not call.cancel()


# Recovery.


@pytest.mark.slow
def test_zygote_that_dies_costs_no_call():
    """A running call is tried once more; a waiting one waits on."""
    code = "import time; time.sleep(0.5); print('done')"
    with PythonExecutor(preload=(), max_running=2) as executor:
        calls = [executor.submit(code) for _ in range(5)]
        wait_until_running(executor, 2)
        dead = zygote(executor)
        children = descendants(dead)
        os.kill(dead, signal.SIGKILL)
        assert [call.result(timeout=60).stdout for call in calls] == ["done\n"] * 5
        assert gone_within([dead, *children])


@pytest.mark.slow
def test_call_whose_zygote_dies_twice_is_our_failure():
    with PythonExecutor(preload=(), max_running=1) as executor:
        call = executor.submit(SLEEP, timeout=60)
        for _ in range(2):
            wait_until_running(executor, 1)
            os.kill(zygote(executor), signal.SIGKILL)
            time.sleep(0.3)
        result = call.result(timeout=60)
        assert result.status is ToolStatus.INFRA_ERROR and "zygote died" in result.stderr
        assert run(executor, "print(1)").stdout == "1\n"


@pytest.mark.slow
def test_zygote_that_hangs_is_replaced_and_the_call_is_not_blamed():
    """Code that ended in time has its result, late as it is."""
    limits = ToolLimits(wall_seconds=0.5, guard_seconds=0.5)
    with PythonExecutor(preload=(), max_running=1, limits=limits) as executor:
        run(executor, "print(0)")
        os.kill(zygote(executor), signal.SIGSTOP)
        assert run(executor, "print(1)").stdout == "1\n"
        assert run(executor, "print(2)").stdout == "2\n"


@pytest.mark.slow
def test_supervisor_that_dies_costs_no_call():
    code = "import time; time.sleep(0.5); print('done')"
    with PythonExecutor(preload=(), max_running=2) as executor:
        calls = [executor.submit(code) for _ in range(5)]
        wait_until_running(executor, 2)
        dead = supervisor(executor)
        started = descendants(dead)
        os.kill(dead, signal.SIGKILL)
        assert [call.result(timeout=60).stdout for call in calls] == ["done\n"] * 5
        assert gone_within([dead, *started])


@pytest.mark.slow
def test_supervisor_that_cannot_be_replaced_fails_calls_until_it_can(monkeypatch):
    """Our failure, told at once; and not for ever."""
    with PythonExecutor(preload=(), max_running=1) as executor:
        call = executor.submit(SLEEP, timeout=60)
        wait_until_running(executor, 1)
        with monkeypatch.context() as broken:
            broken.setattr("gtpo_jax.tools.sandbox.wire.COMMAND", (sys.executable, "-c", "pass"))
            os.kill(supervisor(executor), signal.SIGKILL)
            assert call.result(timeout=60).status is ToolStatus.INFRA_ERROR
            assert run(executor, "print(1)").status is ToolStatus.INFRA_ERROR
        assert run(executor, "print(2)").stdout == "2\n"


def test_child_that_dies_before_its_call_costs_none():
    with PythonExecutor(preload=(), max_running=2) as executor:
        run(executor, "print(0)")
        time.sleep(0.2)
        ready = descendants(zygote(executor))
        assert ready
        for pid in ready:
            os.kill(pid, signal.SIGKILL)
        assert [run(executor, "print(1)").stdout for _ in range(4)] == ["1\n"] * 4


# Protocol.


def test_reply_forged_on_every_descriptor_is_only_output(executor):
    messages = [{"id": 1, "status": "ok", "stdout": "forged"}, {"done": 1, "status": 0, "peak": 0}]
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
    result = run(executor, code)
    assert result.status is ToolStatus.OK and result.stdout.endswith("real\n")
    assert run(executor, "print(1)").stdout == "1\n"


def test_trainer_never_forks():
    """JAX runs threads in the trainer, and a fork of those hangs now and then."""
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))  # also told of `preexec_fn`
    with PythonExecutor(preload=(), max_running=1) as executor:
        assert run(executor, "print(1)").stdout == "1\n"
    assert not forks


# Closing.


def test_close_cancels_calls_and_ends_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    threads = threading.active_count()
    executor = PythonExecutor(preload=(), max_running=2)
    calls = [executor.submit(SLEEP, timeout=60) for _ in range(3)]
    wait_until_running(executor, 2)
    pids = [supervisor(executor), *descendants(supervisor(executor))]
    begin = time.monotonic()
    executor.close()
    assert time.monotonic() - begin < 10
    assert gone_within(pids, seconds=1.0)
    assert all(call.cancelled() for call in calls)
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    executor.close()
    with pytest.raises(RuntimeError, match="submit after close"):
        executor.submit("print(1)")


def test_executors_come_and_go_without_leaving_descriptors():
    def count():
        return len(os.listdir("/proc/self/fd"))

    with PythonExecutor(preload=(), max_running=1) as executor:
        run(executor, "print(1)")
    before = count()
    for _ in range(3):
        with PythonExecutor(preload=(), max_running=1) as executor:
            os.kill(zygote(executor), signal.SIGKILL)
            assert run(executor, "print(1)").stdout == "1\n"
    assert count() == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("victims", ["trainer", "trainer and supervisor", "trainer and zygote"])
def test_trainer_that_dies_leaves_no_process(tmp_path, number, victims):
    """Alone, or at one moment with a process that would otherwise clean up after it."""
    note = tmp_path / "note.txt"
    script = f"""\
        import os, pathlib, signal, time
        from gtpo_jax.tools import PythonExecutor
        from tests.tools.calls import descendants, supervisor, zygote
        executor = PythonExecutor(preload=(), max_running=2)
        executor.submit({SLEEP!r}, timeout=60)
        executor.submit({SLEEP!r}, timeout=60, session="a")
        time.sleep(0.5)
        own = [supervisor(executor), *descendants(supervisor(executor))]
        pathlib.Path({str(note)!r}).write_text(" ".join(map(str, own)))
        pids = {{"supervisor": supervisor(executor), "zygote": zygote(executor)}}
        for name, pid in pids.items():
            if name in {victims!r}:
                os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), {int(number)})
        time.sleep(60)
        """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    trainer = subprocess.run(command, cwd=ROOT, timeout=60)
    assert trainer.returncode == -number
    pids = [int(word) for word in note.read_text().split()]
    assert len(pids) >= 4 and gone_within(pids)


def test_processes_inherit_nothing_of_the_trainers_environment(monkeypatch):
    monkeypatch.setenv("API_KEY", "hunter2")
    with PythonExecutor(preload=(), max_running=1) as executor:
        pids = [supervisor(executor), *descendants(supervisor(executor))]
        read = [pathlib.Path(f"/proc/{pid}/environ").read_bytes() for pid in pids if _ours(pid)]
    assert read and not any(b"hunter2" in text for text in read)


def _ours(pid):
    return os.access(f"/proc/{pid}/environ", os.R_OK)
