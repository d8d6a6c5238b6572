"""The nursery: the supervisor's zygote, and the children that wait for their first code.

It starts the zygote, replaces one that dies or hangs, and keeps `spare` children ready, so that no
call waits for a fork.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import socket
import subprocess
import time
from collections import deque
from typing import Protocol

from . import wire
from .loop import Loop
from .process import Process

START_SECONDS = 60.0  # for a zygote, on a loaded machine with a cold disk, or a child
STOP_SECONDS = 1.0  # for a zygote to clean up before it is killed
STARTS = 3  # that may fail in a row before the machine counts as broken


class Owner(Protocol):
    """The receiver of events. All calls come from inside the `select` loop."""

    def on_report(self, report: dict[str, str | None]) -> None: ...
    def on_control(self, process: Process, events: int) -> None: ...
    def on_exit(self, process: Process, message: wire.Message) -> None: ...
    def on_zygote_gone(self, processes: list[Process], reason: str) -> None: ...
    def on_broken(self, reason: str) -> None: ...


class Nursery:
    def __init__(
        self,
        owner: Owner,
        loop: Loop,
        config: wire.Message,
        *,
        spare: int,
        places: int,
    ) -> None:
        self._owner, self._loop, self._config = owner, loop, config
        self._spare, self._places = spare, places
        self.ready: deque[Process] = deque()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._failures = 0  # starts in a row
        self._reset()

    def _reset(self) -> None:
        self._channel: wire.Channel | None = None
        self._reported = self._fruitful = False
        self._free = list(
            range(self._places)
        )  # a heap: low places, which exist already, come first
        self._asked: dict[int, float] = {}  # place → when its child was asked for
        self.processes: dict[int, Process] = {}  # place → child, from fork to exit
        self.ready.clear()
        self._started = 0.0

    # The zygote.

    @property
    def running(self) -> bool:
        return self._zygote is not None

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        try:
            self._zygote = subprocess.Popen(
                [*wire.COMMAND, "zygote", str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[fd],
                cwd="/",
                env=wire.ENVIRONMENT,
            )
        except OSError as error:
            ours.close()
            self._failed(f"the zygote cannot be started: {error}")
            return
        finally:
            theirs.close()
        self._started = time.monotonic()
        self._channel = wire.Channel(ours, descriptors=True)
        self._channel.send(self._config)
        self._loop.watch(ours, self._on_zygote)

    def stop(self) -> None:
        """Kills the zygote and all its children, and forgets them."""
        for process in self.processes.values():
            process.kill()
            self.close(process)
        if self._channel is not None:
            self._loop.forget(self._channel.socket)
            self._channel.close()  # the end of the stream tells the zygote to end
        if self._zygote is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._zygote.wait(STOP_SECONDS)
            self._zygote.kill()
            self._zygote.wait()
            self._zygote = None
        self._reset()

    def restart(self, reason: str) -> None:
        """Replaces the zygote."""
        if not self.running:
            return
        processes = list(self.processes.values())
        fruitless = not self._fruitful
        self.stop()
        self._owner.on_zygote_gone(processes, reason)
        if fruitless:
            self._failed(reason)
        else:
            self.start()

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures < STARTS:
            self.start()
        else:
            self._failures = 0
            self._owner.on_broken(reason)

    def _on_zygote(self, events: int) -> None:
        assert self._channel is not None
        try:
            for message in self._channel.receive():
                self._on_message(message)
        except (wire.Closed, wire.ProtocolError) as error:
            self.restart(f"the zygote died: {error}")

    def _on_message(self, message: wire.Message) -> None:
        assert self._channel is not None
        if "child" in message:
            fds = [self._channel.fds.popleft() for _ in range(message["fds"])]
            process = Process(message["child"], message["pid"], fds)
            self.processes[process.place] = process
            callback = functools.partial(self._owner.on_control, process)
            self._loop.watch(process.control.socket, callback)
        elif "exit" in message:
            process = self.processes.pop(message["exit"])
            self._asked.pop(process.place, None)
            self._release(process.place)
            with contextlib.suppress(ValueError):
                self.ready.remove(process)
            self._owner.on_exit(process, message)
        elif "failed" in message:
            self._asked.pop(message["failed"], None)
            self._release(message["failed"])
            raise wire.ProtocolError(message["reason"])
        elif "report" in message:
            self._reported = True
            self._owner.on_report(message["report"])
        else:
            raise wire.ProtocolError(message.get("broken", "an unknown message"))

    # Children.

    def on_ready(self, process: Process) -> None:
        self._asked.pop(process.place, None)
        self._fruitful, self._failures = True, 0
        self.ready.append(process)

    def _release(self, place: int) -> None:
        heapq.heappush(self._free, place)

    def close(self, process: Process) -> None:
        """Releases a child that has exited, after its output has been read."""
        if process.closed:
            return
        for source in (process.control.socket, process.stdout, process.stderr):
            self._loop.forget(source)
        process.close()

    def provide(self, wanted: int) -> None:
        """Requests children until `wanted`, or the spare ones, are ready or requested."""
        if self._channel is None or not self._reported:
            return
        now = time.monotonic()
        missing = max(wanted, self._spare) - len(self.ready) - len(self._asked)
        for _ in range(min(missing, len(self._free))):
            place = heapq.heappop(self._free)
            self._asked[place] = now
            with contextlib.suppress(wire.Closed):  # it is gone, and its socket will report that
                self._channel.send({"fork": place})

    def check(self, now: float) -> None:
        """Replaces a zygote that takes too long."""
        began = min(self._asked.values(), default=now)
        if not self._reported and self.running:
            began = self._started
        if now - began > START_SECONDS:
            self.restart(f"the zygote did not answer in {START_SECONDS:.0f} s")
