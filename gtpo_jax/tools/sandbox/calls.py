"""A call as the supervisor sees it, from its arrival to its result, and how its end is judged."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

from . import wire
from .capture import Capture

if TYPE_CHECKING:
    from .process import Process
    from .sessions import Session

# Why the supervisor ended a call, and what its result says of it. A call that has exited on its own
# without a word from the zygote counts as `unreported` until that word comes.
ENDED = {
    "timeout": ("timeout", ""),
    "output_limit": ("output_limit", ""),
    "cpu_limit": ("cpu_limit", ""),
    "threads": ("crash", "killed: more than {threads} threads"),
    "control": ("crash", "killed: it took hold of its session's channel"),
    "session": ("crash", "killed: its session was ended"),
}

_MEMORY_ERROR = re.compile(r"[\w.]*MemoryError\b")


@dataclasses.dataclass(eq=False)
class Call:
    """A call from its arrival to its result."""

    id: int
    code: str
    timeout: float
    session: Session | None
    attempts: int = 0  # that were cut short
    dead_children: int = 0  # that it was given
    canceled: bool = False
    state_lost: bool = False
    process: Process | None = None
    out: Capture | None = None
    err: Capture | None = None
    reading: set[int] = dataclasses.field(default_factory=set)  # streams whose end has not come
    began: float = 0.0
    deadline: float = 0.0  # of the call; once it is being ended, of the news that it has
    cpu_before: float = 0.0
    ended_by: str = ""  # a key of ENDED, or "unreported"
    control_lost: bool = False
    taken: bool = True  # by the child, as far as is known
    exit: wire.Message | None = None  # the zygote's word on how the process ended
    drain_until: float = 0.0

    def __lt__(self, other: Call) -> bool:
        return self.id < other.id

    @property
    def in_session(self) -> bool:
        """Its session has an interpreter."""
        return self.session is not None and self.session.process is not None

    @property
    def runaway(self) -> bool:
        return any(stream is not None and stream.runaway for stream in (self.out, self.err))

    @property
    def due(self) -> float:
        """When to look at it again at the latest."""
        waiting = self.exit is not None or self.control_lost
        return min(self.deadline, self.drain_until) if waiting else self.deadline

    def take(self, process: Process, limits: dict[str, Any], now: float) -> None:
        """Starts in this process."""
        keep, stop_at = limits["output_bytes"], limits["runaway_bytes"]
        self.process, process.call = process, self
        self.out = Capture(process.stdout, keep, stop_at)
        self.err = Capture(process.stderr, keep, stop_at)
        self.reading = {process.stdout, process.stderr}
        self.began, self.deadline = now, now + self.timeout

    def read(self, fd: int) -> bool:
        """Takes what a stream holds; False when nothing more will be read from it."""
        stream = self.out if self.out is not None and fd == self.out.fd else self.err
        assert stream is not None
        if stream.read():
            return True
        self.reading.discard(fd)
        return False

    def reset(self) -> None:
        """As it was when it arrived, to be tried once more."""
        self.ended_by, self.taken = "", True
        self.out = self.err = self.exit = None
        self.reading = set()

    def result(
        self, exit_code: int, *, cpu: float, peak: int, limits: dict[str, Any]
    ) -> wire.Message:
        """The fields of the `ToolResult` of the call, which has ended."""
        assert self.out is not None and self.err is not None
        stderr = self.err.text()
        # It may have ended by itself although not all that it wrote was read.
        ended_by = self.ended_by or ("output_limit" if self.runaway else "")
        status, reason = outcome(ended_by, exit_code, cpu, stderr, limits)
        return {
            "id": self.id,
            "status": status,
            "stdout": self.out.text(),
            "stderr": with_last_line(stderr, reason),
            "truncated_bytes": self.out.dropped + self.err.dropped,
            "wall_seconds": time.monotonic() - self.began,
            "cpu_seconds": cpu,
            "peak_bytes": peak,
            "state_lost": self.state_lost,
        }


def outcome(
    ended_by: str, exit_code: int, cpu_seconds: float, stderr: str, limits: dict[str, Any]
) -> tuple[str, str]:
    """Status of a call, and the reason where the call's own stderr does not give it."""
    if ended_by:
        status, reason = ENDED[ended_by]
        return status, reason.format(**limits)
    # SIGKILL follows when SIGXCPU was ignored. On virtual machines the limit may fire before
    # the measured time is up (0.8 s for 1 s was seen), so half of it is taken as the sign.
    out_of_cpu = cpu_seconds >= limits["cpu_seconds"] / 2
    if exit_code == -signal.SIGXCPU or (exit_code == -signal.SIGKILL and out_of_cpu):
        return "cpu_limit", ""
    if exit_code < 0:
        return "crash", f"killed by {signal_name(-exit_code)}"
    if exit_code == 0:
        return "ok", ""
    last = stderr.rstrip().rpartition("\n")[2]
    if exit_code == 1 and _MEMORY_ERROR.match(last):
        return "memory", ""
    # An uncaught exception ends with 1 and a traceback; so who ends with 1 in silence was `_exit`.
    told = last == f"exit status {exit_code}" or (exit_code == 1 and last)
    return "error", "" if told else f"exit status {exit_code}"


def failure(call: Call, reason: str) -> wire.Message:
    """The fields of the `ToolResult` of a call that failed through no fault of its own."""
    return {
        "id": call.id,
        "status": "infra_error",
        "stderr": reason,
        "state_lost": call.state_lost,
    }


def exit_code(exit: wire.Message) -> int:
    return os.waitstatus_to_exitcode(exit["wait"])


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def with_last_line(text: str, line: str) -> str:
    if not line:
        return text
    return text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"
