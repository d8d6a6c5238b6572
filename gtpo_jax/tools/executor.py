"""The trainer's side of the Python tool: a pool of worker processes behind futures.

The trainer runs JAX and its threads, so it never forks: `subprocess` starts the workers, and those
fork. What runs the code and how it is limited is in `worker.py` and `child.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from typing import Any

from gtpo_jax import types
from gtpo_jax.tools import limits as tool_limits

_WORKER = pathlib.Path(__file__).with_name("worker.py")
# No site packages, no user site, no script folder on the path, no byte code written. Not `-I`: it
# ignores PYTHONHASHSEED, and the environment below is all there is anyway.
_COMMAND = [sys.executable, "-s", "-S", "-P", "-B", str(_WORKER)]
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # order of sets of strings
    "PYTHONUTF8": "1",
    "TZ": "UTC",
    "MALLOC_ARENA_MAX": "2",  # glibc reserves 128 MiB of address space per thread otherwise
}
_START_SECONDS = 60.0  # for a worker to start, on a loaded host with a cold disk
_STOP_SECONDS = 1.0  # for a worker to end its call and itself, before it is killed
_REPLY_BYTES = 1 << 28
_HEADER = struct.Struct(">I")


class WorkerError(Exception):
    """The worker died, hangs or broke the protocol; the text says which."""


class _Worker:
    """One worker process and the socket that is its stdin and stdout.

    One thread calls; `stop` may come from another, and wakes a call in progress.
    """

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="gtpo_tool_")
        self._socket, theirs = socket.socketpair()
        self._requests = 0
        self._group: int | None = None  # process group of the call in progress
        try:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                cwd=self._directory,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in the terminal is the trainer's to handle
            )
        except OSError:
            self._socket.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Returns once the worker has started; raises `WorkerError` otherwise."""
        if self._receive(time.monotonic() + _START_SECONDS) != {"ready": True}:
            raise WorkerError("the worker's first message is not that it is ready")

    def call(
        self, code: str, *, wall_seconds: float, limits: tool_limits.ToolLimits
    ) -> types.ToolResult:
        """Runs the code; raises `WorkerError` when no answer comes; the worker is then spent."""
        self._requests += 1
        request = {
            "id": self._requests,
            "code": code,
            "wall_seconds": wall_seconds,
            "limits": dataclasses.asdict(limits),
        }
        deadline = time.monotonic() + wall_seconds + limits.guard_seconds
        self._send(request, deadline)
        reply = self._reply(deadline)
        if "group" in reply:  # a worker that could not even fork answers at once
            group = reply["group"]
            if not isinstance(group, int) or group <= 1:  # 0 would be the trainer's own, in `stop`
                raise WorkerError(f"expected the number of a process group, got {group!r}")
            self._group = group
            reply = self._reply(deadline)
        self._group = None
        try:
            return types.ToolResult(**{**reply, "status": types.ToolStatus(reply["status"])})
        except (KeyError, TypeError, ValueError) as error:
            raise WorkerError(f"the worker's reply is not a tool result: {error}") from error

    def stop(self) -> None:
        """Ends the worker, its call and what that call started. May be called twice."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # the worker's end of file, and ours in `call`
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        group, self._group = self._group, None
        if group is not None:
            # A worker that was killed could not end its call's group itself.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _reply(self, deadline: float) -> dict[str, Any]:
        """The next message, which must belong to the request sent last."""
        message = self._receive(deadline)
        number = message.pop("id", None)
        if number != self._requests:
            raise WorkerError(f"expected a reply to request {self._requests}, got one to {number}")
        return message

    def _send(self, message: dict[str, Any], deadline: float) -> None:
        body = json.dumps(message).encode()
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            self._socket.sendall(_HEADER.pack(len(body)) + body)
        except OSError as error:
            raise WorkerError(f"the worker takes no request: {error}") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        (size,) = _HEADER.unpack(self._exactly(_HEADER.size, deadline))
        if size > _REPLY_BYTES:
            raise WorkerError(f"the worker announced a reply of {size} bytes")
        try:
            message = json.loads(self._exactly(size, deadline))
        except ValueError as error:
            raise WorkerError(f"the worker's reply is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise WorkerError(f"the worker's reply is a {type(message).__name__}, not an object")
        return message

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
                chunk = self._socket.recv(size - len(data))
            except TimeoutError as error:
                raise WorkerError("the worker gave no answer in time and was killed") from error
            except OSError as error:
                raise WorkerError(f"the worker cannot be read: {error}") from error
            if not chunk:
                raise WorkerError("the worker died")
            data += chunk
        return bytes(data)


class PythonExecutor:
    """Runs Python code in worker processes, at most `max_running` calls at a time. A `types.Tool`.

    Calls beyond that wait in the order of their submission. Whatever the code does becomes a
    `ToolResult`; a worker that dies is replaced, and its call answers with status `infra_error`.
    Calls share nothing: each has its own process and working directory.

    These are limits, not a jail: code runs with the rights of the trainer's user, so it can read
    that user's files, reach the network and signal that user's processes.
    """

    def __init__(
        self, *, max_running: int = 2, limits: tool_limits.ToolLimits | None = None
    ) -> None:
        """Starts the workers.

        Raises `RuntimeError` if they do not start.
        """
        if isinstance(max_running, bool) or not isinstance(max_running, int) or max_running < 1:
            raise ValueError(f"max_running must be an int of at least 1, got {max_running!r}")
        self._limits = tool_limits.ToolLimits() if limits is None else limits
        self._lock = threading.Lock()
        self._closed = False
        self._workers: set[_Worker] = set()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        # As many threads as workers: a running call holds one of each, so no call ever waits for a
        # worker, and only the threads' queue limits what runs.
        self._threads = futures.ThreadPoolExecutor(max_running, thread_name_prefix="gtpo_tool")
        try:
            self._workers.update(_Worker() for _ in range(max_running))
            for worker in self._workers:
                worker.wait_ready()
                self._idle.put(worker)
        except (WorkerError, OSError) as error:
            self.close()
            raise RuntimeError(
                f"the tool's worker processes do not start: {error}; run"
                f" `{' '.join(_COMMAND)}` by hand to see why"
            ) from error

    def submit(
        self, code: str, *, timeout: float | None = None
    ) -> futures.Future[types.ToolResult]:
        """Runs `code`; `timeout`, in seconds, replaces `limits.wall_seconds` for this call.

        The clock starts when the call does, not while it waits for a worker.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, got {type(code).__name__}; decode it first")
        wall_seconds = self._limits.wall_seconds if timeout is None else timeout
        tool_limits.check_seconds("timeout", wall_seconds)
        with self._lock:
            if self._closed:
                raise RuntimeError("submit after close: the executor is closed; make a new one")
            return self._threads.submit(self._run, code, wall_seconds)

    def close(self) -> None:
        """Ends at once: queued calls are canceled, running ones answer `infra_error`."""
        with self._lock:
            self._closed = True
            workers = tuple(self._workers)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> PythonExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, code: str, wall_seconds: float) -> types.ToolResult:
        worker = self._idle.get()
        try:
            if not worker.alive:
                worker = self._replace(worker)
                worker.wait_ready()
            return worker.call(code, wall_seconds=wall_seconds, limits=self._limits)
        except (WorkerError, OSError) as error:
            worker.stop()
            return types.ToolResult(status=types.ToolStatus.INFRA_ERROR, stderr=str(error))
        finally:
            # A dead worker goes back as well, to be replaced by the next call: a host that can
            # start no process right now costs single calls, never a place in the pool.
            self._idle.put(worker)

    def _replace(self, dead: _Worker) -> _Worker:
        dead.stop()
        with self._lock:
            if self._closed:
                raise WorkerError("the executor was closed")
            fresh = _Worker()
            self._workers.remove(dead)
            self._workers.add(fresh)
        return fresh
