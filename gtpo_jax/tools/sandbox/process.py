"""The supervisor's view of a child: its streams, its socket, and a handle to kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time

from . import wire

_CONTROL_LIMIT = 1 << 16  # bytes of a message from a child, which is not trusted


class Process:
    """One child. It has a single process where the machine can enforce that."""

    def __init__(self, place: int, pid: int, fds: list[int]) -> None:
        control, self.stdout, self.stderr, *handle = fds
        self.place = place
        self.control = wire.Channel(socket.socket(fileno=control), limit=_CONTROL_LIMIT)
        self.control.socket.setblocking(False)
        for fd in (self.stdout, self.stderr):
            os.set_blocking(fd, False)
        # The zygote's pid is valid in the zygote's own namespace; a pidfd is valid everywhere.
        self._handle = handle[0] if handle else None
        self.pid = pid if self._handle is None else _pid_of(self._handle) or pid
        self.ready = self.closed = False

    def kill(self) -> None:
        """Kills it at once. The zygote still reports its exit."""
        if self.closed:
            return
        with contextlib.suppress(OSError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def exited(self) -> bool:
        """True if its process has ended, even if the zygote has not noticed yet."""
        if self._handle is None:
            return False
        poll = select.poll()  # `select` itself takes no descriptor above 1023
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(0))

    def cpu_seconds(self) -> float:
        """Processor time that it has used; 0 where the machine does not tell."""
        try:
            # The clock of a process, as `clock_getcpuclockid` numbers it.
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def threads(self) -> int:
        """The number of its threads; 0 where the machine does not tell."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
        return 0

    def discard(self, fd: int) -> bool:
        """Reads and drops what a stream holds; False at its end."""
        try:
            return bool(os.read(fd, 1 << 16))
        except BlockingIOError:
            return True

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.control.close()
        for fd in (self.stdout, self.stderr, self._handle):
            if fd is not None:
                os.close(fd)


def _pid_of(handle: int) -> int | None:
    """The pid of a process in this namespace."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/fdinfo/{handle}", encoding="utf-8") as file,
    ):
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    return None
