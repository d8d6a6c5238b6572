"""The Python tool: untrusted code in isolated processes, behind futures.

The trainer runs JAX and its threads, so it never forks: it starts one program, the supervisor, and
talks to it over a socket. The package `sandbox` runs the code and isolates it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import pathlib
import platform
import socket
import subprocess
import tempfile
import threading
from collections.abc import Collection, Sequence
from concurrent import futures

from gtpo_jax import types
from gtpo_jax.tools import limits as tool_limits
from gtpo_jax.tools.busy import ExecutorBusy
from gtpo_jax.tools.sandbox import properties, wire

_START_SECONDS = 120.0  # for the supervisor and its zygote, on a loaded machine with a cold disk
_STOP_SECONDS = 3.0  # for the supervisor to end all calls and itself, before it is killed
_ATTEMPTS = 2  # of a call whose supervisor died under it


class IsolationError(RuntimeError):
    """This machine cannot enforce properties that were not waived; `missing` names them."""

    def __init__(self, message: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.missing = missing


@dataclasses.dataclass(eq=False)
class _Pending:
    """A call that has no result yet."""

    message: wire.Message
    future: futures.Future[types.ToolResult]
    attempts: int = 1


class PythonExecutor:
    """A `types.Tool` that runs Python code, each call in an isolated process of its own.

    At most `max_running` calls run at a time, by default one per processor that this process may
    use; the others wait in the order of their submission. Whatever the code does, the outcome is a
    `types.ToolResult`, never an exception, and no call sees anything of another. Any number of
    threads may submit.

    `session="…"` keeps one interpreter for all calls of that name, as in a notebook: variables
    survive from call to call, and the calls of a session run one after the other. When a call loses
    the interpreter (by a time-out, say), a clean one replaces it and the result says `state_lost`.
    The next result of a session also says so when the session had no call for longer than
    `session_idle_seconds`, or lost its interpreter because there were more than `max_sessions`.

    `preload` names packages that are imported once, before the first call, so that calls start with
    them loaded. Other packages in the same folders can be imported too, but slowly.

    The executor refuses to start when this machine lacks a property of `isolation_report()` that
    `allow` does not name. It isolates on Linux, on x86-64 and aarch64; elsewhere `allow` must name
    every property.

    Raises `IsolationError` and, if its processes do not start at all, `RuntimeError`.
    """

    def __init__(
        self,
        *,
        max_running: int | None = None,
        limits: tool_limits.ToolLimits | None = None,
        preload: Sequence[str] = ("numpy", "sympy"),
        allow: Collection[str] = (),
        max_queued: int = 4096,
        max_sessions: int = 64,
        session_idle_seconds: float = 600.0,
    ) -> None:
        running = _processors() if max_running is None else max_running
        _check_count("max_running", running, 1)
        _check_count("max_queued", max_queued, 0)
        _check_count("max_sessions", max_sessions, running)
        tool_limits.check_seconds("session_idle_seconds", session_idle_seconds)
        self._limits = tool_limits.ToolLimits() if limits is None else limits
        self._allow = _checked_allow(allow)
        self._settings = {
            "limits": dataclasses.asdict(self._limits),
            "packages": list(preload),
            "folders": library_folders(preload),
            "writable": _writable_folders(),
            "allow": sorted(self._allow),
            "max_running": running,
            "max_sessions": max_sessions,
            "session_idle_seconds": session_idle_seconds,
        }
        self._capacity = running + max_queued
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._lock = threading.Lock()  # of all that follows
        self._closed = False
        self._sessions: dict[str, None] = {}  # that may have variables
        self._report: dict[str, str | None] = {}
        self._wanted = threading.Event()  # somebody waits for a supervisor, if there is none
        self._process, self._channel = self._start()
        self._reader = threading.Thread(target=self._read, name="gtpo_tool", daemon=True)
        self._reader.start()

    def submit(
        self, code: str, *, timeout: float | None = None, session: str | None = None
    ) -> futures.Future[types.ToolResult]:
        """Runs `code`; `timeout`, in seconds, replaces `limits.wall_seconds` for this call.

        The clock starts when the call starts, not while it waits. `future.cancel()` ends the call
        even when it is running. Raises `ExecutorBusy` when `max_queued` calls wait.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, got {type(code).__name__}; decode it first")
        if session is not None and not isinstance(session, str):
            raise TypeError(f"session must be a str or None, got {type(session).__name__}")
        seconds = self._limits.wall_seconds if timeout is None else timeout
        tool_limits.check_seconds("timeout", seconds)
        message = {"code": code, "timeout": seconds, "session": session}
        future: futures.Future[types.ToolResult] = futures.Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("submit after close: the executor is closed; make a new one")
            if len(self._pending) >= self._capacity:
                raise ExecutorBusy(
                    f"{self._capacity} calls run or wait; collect results before submitting more,"
                    " or raise max_queued"
                )
            number = message["id"] = next(self._numbers)
            self._pending[number] = _Pending(message, future)
            if session is not None:
                self._sessions[session] = None
            self._send(message)
            self._wanted.set()
        future.add_done_callback(lambda done: self._on_done(number, done))
        return future

    def end_session(self, session: str) -> None:
        """Ends the interpreter of a session and all its calls that have no result yet."""
        with self._lock:
            self._sessions.pop(session, None)
            self._send({"end": session})

    def isolation_report(self) -> dict[str, str | None]:
        """Property → the mechanisms that enforce it on this machine, or None where none does.

        The properties are those of `sandbox.properties.PROPERTIES`.
        """
        return dict(self._report)

    def close(self) -> None:
        """Ends at once: cancels calls without a result and leaves nothing of them behind."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._wanted.set()
            pending = list(self._pending.values())
        with contextlib.suppress(OSError):
            self._channel.socket.shutdown(socket.SHUT_RDWR)  # both sides see the end of the stream
        self._stop(self._process)
        self._reader.join()
        self._channel.close()
        for call in pending:
            call.future.cancel()

    def __enter__(self) -> PythonExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # The supervisor.

    def _start(self) -> tuple[subprocess.Popen[bytes], wire.Channel]:
        """Starts a supervisor and waits until its zygote is ready."""
        ours, theirs = socket.socketpair()
        channel = wire.Channel(ours)
        try:
            fd = theirs.fileno()
            process = subprocess.Popen(
                [*wire.COMMAND, "supervisor", str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[fd],
                cwd="/",
                env=wire.ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in the terminal is for the trainer
            )
        except OSError as error:
            channel.close()
            raise RuntimeError(f"the tool's supervisor cannot be started: {error}") from error
        finally:
            theirs.close()
        try:
            channel.send({**self._settings, "lost_sessions": list(self._sessions)})
            ours.settimeout(_START_SECONDS)
            answer = channel.next()
            ours.settimeout(None)
            if "report" not in answer:
                raise RuntimeError(f"the tool's processes do not start: {answer.get('broken')}")
            self._report = answer["report"]
            self._refuse_if_weak()
        except (wire.Closed, wire.ProtocolError) as error:
            self._discard(process, channel)
            raise RuntimeError(f"the tool's supervisor does not start: {error}") from error
        except RuntimeError:
            self._discard(process, channel)
            raise
        return process, channel

    def _refuse_if_weak(self) -> None:
        missing = [name for name, layers in self._report.items() if layers is None]
        missing = tuple(name for name in missing if name not in self._allow)
        if not missing:
            return
        lines = [f"  {name}: {properties.PROPERTIES[name]}" for name in missing]
        needed = sorted({*self._allow, *missing})
        raise IsolationError(
            f"this host ({platform.system()} {platform.machine()}) cannot enforce\n"
            + "\n".join(lines)
            + f"\nRun `python -m gtpo_jax.tools.doctor` to see why. To run all the same, with code"
            f" that you trust: PythonExecutor(allow={tuple(needed)!r})",
            missing,
        )

    def _discard(self, process: subprocess.Popen[bytes], channel: wire.Channel) -> None:
        channel.close()
        self._stop(process)

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _send(self, message: wire.Message) -> None:
        """Sends, under the lock. The next supervisor gets again what a dead one did not take."""
        with contextlib.suppress(wire.Closed):
            self._channel.send(message)

    # Results.

    def _read(self) -> None:
        """Runs in the reader thread: resolves futures until the executor is closed."""
        while True:
            try:
                for message in self._channel.receive():
                    self._resolve(message)
            except (wire.Closed, wire.ProtocolError) as error:
                if not self._recover(str(error)):
                    return

    def _resolve(self, message: wire.Message) -> None:
        number = message.pop("id")
        with self._lock:
            call = self._pending.pop(number, None)
        if call is not None:
            status = types.ToolStatus(message.pop("status"))
            _finish(call.future, types.ToolResult(status=status, **message))

    def _on_done(self, number: int, future: futures.Future[types.ToolResult]) -> None:
        if not future.cancelled():
            return
        with self._lock:
            if self._pending.pop(number, None) is not None and not self._closed:
                self._send({"cancel": number})

    def _recover(self, reason: str) -> bool:
        """Starts another supervisor and resubmits the calls without a result; False once closed.

        A call is tried twice, but not a call of a session: its variables died with the supervisor.
        """
        while True:
            with self._lock:
                if self._closed:
                    return False
                self._channel.close()
                spent = [c for c in self._pending.values() if self._is_spent(c)]
                for call in spent:
                    del self._pending[call.message["id"]]
            self._process.kill()
            self._process.wait()
            failure = types.ToolResult(
                status=types.ToolStatus.INFRA_ERROR, stderr=f"the tool's supervisor died: {reason}"
            )
            for call in spent:
                _finish(call.future, failure)
            try:
                process, channel = self._start()
            except RuntimeError as error:
                reason = str(error)
                self._fail_all(reason)
                self._wanted.wait()
                continue
            with self._lock:
                if not self._closed:
                    self._process, self._channel = process, channel
                    for call in self._pending.values():
                        call.attempts += 1
                        self._send(call.message)
                    return True
            self._discard(process, channel)

    def _is_spent(self, call: _Pending) -> bool:
        return call.attempts >= _ATTEMPTS or call.message["session"] is not None

    def _fail_all(self, reason: str) -> None:
        """Fails all waiting calls. The next `submit` is the occasion for another try."""
        with self._lock:
            pending, self._pending = self._pending, {}
            self._wanted.clear()
            if self._closed:
                self._wanted.set()
        for call in pending.values():
            _finish(
                call.future,
                types.ToolResult(status=types.ToolStatus.INFRA_ERROR, stderr=reason),
            )


def _finish(future: futures.Future[types.ToolResult], result: types.ToolResult) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(result)


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")


def _checked_allow(allow: Collection[str]) -> frozenset[str]:
    unknown = sorted({allow} if isinstance(allow, str) else set(allow) - set(properties.PROPERTIES))
    if unknown:
        raise ValueError(
            f"allow must be a collection of names among {', '.join(properties.PROPERTIES)};"
            f" got {', '.join(unknown)}"
        )
    return frozenset(allow)


def library_folders(packages: Sequence[str]) -> list[str]:
    """The folders that children import from; imports nothing here to find them."""
    folders = []
    for name in packages:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or (spec.origin is None and not spec.submodule_search_locations):
            raise ValueError(
                f"preload names {name!r}, which is no top-level module that can be imported here;"
                " install it, or leave it out"
            )
        if spec.origin in ("built-in", "frozen"):
            continue
        inside = list(spec.submodule_search_locations or ())
        place = pathlib.Path(inside[0] if inside else str(spec.origin)).parent
        folders.append(os.path.realpath(place))
    return list(dict.fromkeys(folders))


def _processors() -> int:
    """The number of processors that Slurm or `taskset` let this process use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _writable_folders() -> list[str]:
    """Folders of this machine that the trainer can write to and a call must not."""
    home = os.path.expanduser("~")
    return sorted({os.getcwd(), tempfile.gettempdir(), home})
