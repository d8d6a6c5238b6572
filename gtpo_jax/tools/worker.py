"""The worker: a trusted loop that runs every tool call in a forked child and reports how it ended.

A program of its own, standard library only; `executor.py` starts it. It reads requests on stdin and
writes replies on stdout, each a 4-byte big-endian length and a JSON object:

    request   {"id", "code", "wall_seconds", "limits": the fields of `ToolLimits`}
    replies   {"id", "group": process group of the call}, then {"id"} and the fields of `ToolResult`

The worker itself never runs user code. A child is forked per call from the same bare interpreter
and dies with it, so nothing of one call is visible to the next; what it does is in `child.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.machinery
import json
import mmap
import os
import resource
import select
import shutil
import signal
import struct
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

TICK_SECONDS = 0.02  # how often the processes of a call are counted
DRAIN_SECONDS = 0.05  # how long output is still read after the call's first process has ended
SWEEP_SECONDS = 2.0  # how long killed processes may take to vanish
HEADER = struct.Struct(">I")
Message = dict[str, Any]
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


class TrainerGone(Exception):
    """The other end of the protocol is closed: nobody waits for an answer."""


# The protocol.


def read_exactly(fd: int, size: int) -> bytes:
    chunks = []
    while size:
        chunk = os.read(fd, min(size, 1 << 20))
        if not chunk:
            raise TrainerGone
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def receive(fd: int) -> Message:
    (size,) = HEADER.unpack(read_exactly(fd, HEADER.size))
    return json.loads(read_exactly(fd, size))


def send(fd: int, message: Message) -> None:
    body = json.dumps(message).encode()
    data = memoryview(HEADER.pack(len(body)) + body)
    try:
        while data:
            data = data[os.write(fd, data) :]
    except (BrokenPipeError, ConnectionResetError) as error:
        raise TrainerGone from error


# Reading what a call writes.


class Capture:
    """Reads one stream; keeps its first and its last bytes, `keep` in all, and counts every byte.

    Reading stops for good at `stop_at` bytes, so what is kept of a runaway stream does not depend
    on how fast it was killed.
    """

    def __init__(self, fd: int, keep: int, stop_at: int) -> None:
        self.fd, self.total, self.stop_at = fd, 0, stop_at
        self._head, self._head_size = bytearray(), keep - keep // 2
        self._tail, self._tail_size = bytearray(), keep // 2

    @property
    def runaway(self) -> bool:
        return self.total >= self.stop_at

    @property
    def dropped(self) -> int:
        return self.total - len(self._head) - len(self._tail)

    def read(self) -> bool:
        """Takes what is there; False when nothing more will be read."""
        data = os.read(self.fd, min(1 << 16, self.stop_at - self.total))
        self.total += len(data)
        room = self._head_size - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: max(0, len(self._tail) - self._tail_size)]
        return bool(data) and not self.runaway

    def text(self) -> str:
        if not self.dropped:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = (part.decode("utf-8", "replace") for part in (self._head, self._tail))
        return f"{head}\n[{self.dropped} bytes truncated]\n{tail}"


class Watch:
    """Waits for output, the end of a child and the end of the trainer, whichever comes first."""

    def __init__(self, captures: list[Capture], request_fd: int, wake_fd: int) -> None:
        self._captures = {capture.fd: capture for capture in captures}
        self._request_fd, self._wake_fd = request_fd, wake_fd
        self._poll = select.poll()
        for fd in (*self._captures, request_fd, wake_fd):
            self._poll.register(fd, select.POLLIN)

    @property
    def reading(self) -> bool:
        return bool(self._captures)

    def step(self, seconds: float) -> bool:
        """Waits at most so long; True when a stream had something, be it its end."""
        reading = False
        for fd, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if fd == self._wake_fd:
                os.read(fd, 4096)
            elif fd == self._request_fd:
                raise TrainerGone  # it sends nothing during a call: this is the end
            else:
                reading = True
                if not self._captures[fd].read():
                    self._poll.unregister(fd)
                    del self._captures[fd]
        return reading


# Processes of a call.


def descendants() -> Iterator[int]:
    """Processes below the worker; orphans count, since the worker adopts them. Linux only."""
    pending = [os.getpid()]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):  # it ended meanwhile, or the kernel keeps no such list
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    children = [int(word) for word in file.read().split()]
                yield from children
                pending += children


def too_many_processes(allowed: int) -> bool:
    # RLIMIT_NPROC would not do: it does not bind root, and it counts every task of the user, the
    # trainer's own hundreds of threads included, so what code may do would depend on the trainer.
    return any(count > allowed for count, _ in enumerate(descendants(), start=1))


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for zombies
        os.killpg(group, signal.SIGKILL)


def sweep(group: int) -> None:
    """Ends every process that a call has left: its group, and those that left the group."""
    until = time.monotonic() + SWEEP_SECONDS
    while True:
        kill_group(group)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if time.monotonic() > until:
            raise RuntimeError(f"processes of the call outlived SIGKILL by {SWEEP_SECONDS} s")
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def wait(
    pid: int, watch: Watch, captures: list[Capture], deadline: float, limits: Message
) -> tuple[str, int, resource.struct_rusage]:
    """Reads until the child ends or must be ended.

    Returns what ended it ("" = itself), its wait status and its resource usage.
    """
    count_at = time.monotonic() + TICK_SECONDS
    while True:
        watch.step(min(count_at, deadline) - time.monotonic())
        done, wait_status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return "", wait_status, usage
        now, ended_by = time.monotonic(), ""
        if any(capture.runaway for capture in captures):
            ended_by = "output_limit"
        elif now >= deadline:
            ended_by = "timeout"
        elif now >= count_at:
            count_at = now + TICK_SECONDS
            ended_by = "processes" if too_many_processes(limits["processes"]) else ""
        if ended_by:
            kill_group(pid)
            os.kill(pid, signal.SIGKILL)  # it may not have made its own group yet
            _, wait_status, usage = os.wait4(pid, 0)
            return ended_by, wait_status, usage


# Serving.


class Worker:
    """Serves calls one at a time; each gets a new directory below the private one, `base`."""

    def __init__(self, request_fd: int, reply_fd: int, base: str) -> None:
        self.request_fd, self.reply_fd, self.base = request_fd, reply_fd, base
        self.child = load_child()
        self.child.warm_up()
        self.calls = 0
        # The handler does nothing; Python writes to the pipe when a child ends; it wakes the poll.
        self.wake_fd, wake_write = os.pipe()
        for fd in (self.wake_fd, wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def loop(self) -> None:
        """Serves until the trainer closes its end, be it by dying."""
        send(self.reply_fd, {"ready": True})
        while True:
            request = receive(self.request_fd)
            try:
                reply = self.serve(request)
            except (OSError, RuntimeError) as error:
                # The host is out of processes, descriptors or disk. Whatever state this leaves the
                # worker in ends with it: the trainer starts another.
                reason = f"the worker failed: {type(error).__name__}: {error}"
                reply = {"status": "infra_error", "stderr": reason}
                send(self.reply_fd, {"id": request["id"], **reply})
                return
            send(self.reply_fd, {"id": request["id"], **reply})

    def serve(self, request: Message) -> Message:
        """Runs one call from fork to the last trace of it; returns the fields of a `ToolResult`."""
        self.calls += 1
        directory = os.path.join(self.base, str(self.calls))
        os.makedirs(directory, mode=0o700)
        progress = mmap.mmap(-1, 1)
        begin = time.monotonic()
        pid, out, err = self._fork(request, directory, progress)
        try:
            deadline = begin + request["wall_seconds"]
            ended_by, wait_status, usage = self._watch(pid, request, deadline, out, err)
            wall_seconds = time.monotonic() - begin
        finally:
            os.close(out.fd)
            os.close(err.fd)
            remove(directory)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        status, reason = self.classify(
            ended_by, wait_status, cpu_seconds, request["limits"], progress[0]
        )
        return {
            "status": status,
            "stdout": out.text(),
            "stderr": with_last_line(err.text(), reason),
            "truncated_bytes": out.dropped + err.dropped,
            "wall_seconds": wall_seconds,
            "cpu_seconds": cpu_seconds,
            "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }

    def _fork(
        self, request: Message, directory: str, progress: mmap.mmap
    ) -> tuple[int, Capture, Capture]:
        """Starts the child; returns its number and the worker's ends of its stdout and stderr."""
        limits, worker_pid = request["limits"], os.getpid()
        (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
        # Set here and not in the child, where each first write to a page costs a copy of it.
        os.environ["HOME"] = os.environ["TMPDIR"] = directory
        pid = os.fork()
        if pid == 0:
            outputs = (out_write, err_write)
            self.child.main(request["code"], limits, directory, worker_pid, outputs, progress)
        os.close(out_write)
        os.close(err_write)
        keep, stop_at = limits["output_bytes"], limits["runaway_bytes"]
        return pid, Capture(out_read, keep, stop_at), Capture(err_read, keep, stop_at)

    def _watch(
        self, pid: int, request: Message, deadline: float, out: Capture, err: Capture
    ) -> tuple[str, int, resource.struct_rusage]:
        """Reads and waits until nothing of the call is left; returns what `wait` does."""
        watch = Watch([out, err], self.request_fd, self.wake_fd)
        try:
            send(self.reply_fd, {"id": request["id"], "group": pid})
            ended_by, wait_status, usage = wait(pid, watch, [out, err], deadline, request["limits"])
            # What the call left behind may hold the streams open: they get no longer than this.
            until = time.monotonic() + DRAIN_SECONDS
            while watch.reading and time.monotonic() < until:
                watch.step(until - time.monotonic())
        finally:
            sweep(pid)
        while watch.reading and watch.step(0):
            pass  # the rest of what was written, however late this process got to run
        if not ended_by and (out.runaway or err.runaway):
            ended_by = "output_limit"  # it ended by itself, but not all that it wrote was read
        return ended_by, wait_status, usage

    def classify(
        self, ended_by: str, wait_status: int, cpu_seconds: float, limits: Message, progress: int
    ) -> tuple[str, str]:
        """Status of a call, and the reason where the call's own stderr does not give it."""
        code = os.waitstatus_to_exitcode(wait_status)
        if progress == self.child.NOT_STARTED:
            return "infra_error", "the call could not be set up"
        if ended_by == "processes":
            return "crash", f"killed: more than {limits['processes']} processes"
        if ended_by:
            return ended_by, ""
        # SIGKILL follows when SIGXCPU was ignored. On virtual machines the limit may fire before
        # the measured time is up (0.8 s for 1 s was seen), so half of it is taken as the sign.
        out_of_cpu = cpu_seconds >= limits["cpu_seconds"] / 2
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and out_of_cpu):
            return "cpu_limit", ""
        if code < 0:
            return "crash", f"killed by {signal_name(-code)}"
        if code == 0:
            return "ok", ""
        if progress == self.child.OUT_OF_MEMORY:
            return "memory", ""
        return "error", "" if progress == self.child.REPORTED else f"exit status {code}"


def remove(directory: str) -> None:
    try:
        os.rmdir(directory)  # the usual case: the call wrote no file
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def with_last_line(text: str, line: str) -> str:
    if not line:
        return text
    return text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"


def load_child() -> types.ModuleType:
    """`child.py`, under no name that user code could import and without a folder on `sys.path`."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
    module = types.ModuleType("gtpo_jax_tool_child")
    importlib.machinery.SourceFileLoader(module.__name__, path).exec_module(module)
    return module


def claim_protocol() -> tuple[int, int]:
    """Moves the protocol away from descriptors 0 and 1, which become `/dev/null`."""
    request_fd, reply_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return request_fd, reply_fd


def main() -> None:
    base = os.getcwd()
    worker = Worker(*claim_protocol(), base)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of a call come here to be ended
        # Keeps code of the same user, unless it is root, off the worker's memory and descriptors.
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page of the interpreter
    try:
        worker.loop()
    except TrainerGone:
        pass
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
