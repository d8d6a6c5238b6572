"""The zygote: isolates itself, preloads modules, and forks a child when the supervisor asks.

It never sees the code or output of a call: the supervisor gets a child's streams and socket.

    from the supervisor   first {"limits", "packages", "folders", "allow", "writable"}, then
                          {"fork": place} for each child
    to the supervisor     {"report": property → layers or None}, or {"broken": reason}; then
                          {"child": place, "pid": n, "fds": n} with control, stdout, stderr and, on
                          Linux, a pidfd; {"failed": place, "reason": text} if the host cannot fork;
                          {"exit": place, "wait": status, "cpu": seconds, "peak": bytes}
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import socket
import sys
import tempfile

from . import child, isolation, privileges, wire


class Zygote:
    def __init__(self, channel: wire.Channel, isolated: isolation.Isolation) -> None:
        self._channel, self._isolated = channel, isolated
        self._children: dict[int, int] = {}  # pid → place
        cpu_seconds = isolated.confinement.limits["cpu_seconds"]
        self._serve = functools.partial(child.serve_calls, cpu_seconds=cpu_seconds)
        self._folders: dict[int, str] = {}  # pid → folder, where nothing is better
        # The handler does nothing. When a child ends, Python writes to the pipe: it wakes the poll.
        self._wake, wake_write = os.pipe()
        for fd in (self._wake, wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def loop(self) -> None:
        """Serves until the supervisor is gone."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(fd, 4096)
                    self._reap()
                else:
                    for message in self._channel.receive():
                        self._fork(message["fork"])

    def end(self) -> None:
        """Kills every child. The kernel does what this misses or cannot do."""
        for pid in self._children:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _fork(self, place: int) -> None:
        descriptors: list[int] = []
        try:
            ours, pid = self._start(place, descriptors)
        except OSError as error:
            self._channel.send({"failed": place, "reason": str(error)})
        else:
            with contextlib.suppress(OSError, AttributeError):
                ours.append(os.pidfd_open(pid))
                descriptors.append(ours[-1])
            self._children[pid] = place
            self._channel.send({"child": place, "pid": pid, "fds": len(ours)}, ours)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _start(self, place: int, descriptors: list[int]) -> tuple[list[int], int]:
        """Forks a child; returns the supervisor's ends of its streams, and its pid."""
        isolated = self._isolated
        control, control_child = (s.detach() for s in socket.socketpair())
        descriptors += control, control_child
        pipes = []
        for _ in ("stdout", "stderr"):
            pipes.append(os.pipe())
            descriptors += pipes[-1]
        (out, out_child), (err, err_child) = pipes
        root = isolated.places.prepare(place) if isolated.places is not None else None
        directory = isolated.directory
        if directory is None:
            directory = tempfile.mkdtemp(prefix="gtpo_tool_")
            user = isolated.confinement.user
            if user is not None:
                os.chown(directory, user, user)
            # Set here, as each first write to a page in the child costs a copy of it.
            os.environ["HOME"] = os.environ["TMPDIR"] = directory
        pid = os.fork()
        if pid == 0:
            child.main(
                isolated.confinement,
                root=root,
                directory=directory,
                outputs=(out_child, err_child),
                control=control_child,
                serve=self._serve,
            )
        if isolated.directory is None:
            self._folders[pid] = directory
        return [control, out, err], pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            place = self._children.pop(pid, None)
            if place is None:
                continue  # an orphan, which `_clean_up` ends
            self._clean_up(pid)
            self._channel.send(
                {
                    "exit": place,
                    "wait": status,
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "peak": child.peak_bytes(usage.ru_maxrss),
                }
            )

    def _clean_up(self, pid: int) -> None:
        """Ends the processes that a call started, where nothing prevented it from starting any."""
        if self._isolated.confinement.seccomp is None:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            for orphan in _own_children() - self._children.keys():
                with contextlib.suppress(OSError):
                    os.kill(orphan, signal.SIGKILL)
        folder = self._folders.pop(pid, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _own_children() -> set[int]:
    """The pids of children, with the orphans that the zygote adopted. Linux only."""
    pid = os.getpid()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return {int(word) for word in file.read().split()}
    return set()


def main(fd: int) -> None:
    channel = wire.Channel(socket.socket(fileno=fd))
    if privileges.LINUX:
        privileges.die_with(os.getppid())
    try:
        config = channel.next()
        try:
            isolated = isolation.isolate(config)
        except Exception as error:
            channel.send({"broken": f"{type(error).__name__}: {error}"})
            sys.exit(1)
        zygote = Zygote(channel, isolated)
        channel.send({"report": isolated.report})
        try:
            zygote.loop()
        finally:
            zygote.end()
    except wire.Closed:
        pass
