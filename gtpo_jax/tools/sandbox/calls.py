"""A call as the supervisor sees it, from its arrival to its result, and the status of that result.

Calls and sessions refer to each other, so `Session` is declared here too.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections import deque
from typing import Any

from . import wire
from .capture import Capture
from .process import Process

# The supervisor's reason to end a call → the status and the text of its result. A call that exited
# on its own counts as `unreported` until the zygote reports its exit.
ENDED = {
    "timeout": ("timeout", ""),
    "output_limit": ("output_limit", ""),
    "cpu_limit": ("cpu_limit", ""),
    "threads": ("crash", "killed: more than {threads} threads"),
    "control": ("crash", "killed: it took hold of its session's channel"),
    "session": ("crash", "killed: its session was ended"),
}

_MEMORY_ERROR = re.compile(r"[\w.]*MemoryError\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """The child's own account of how the code of a call ended. It is text and carries no status.

    | `end` | what happened | `text` |
    |---|---|---|
    | `exception` | an exception that nobody caught | the exception as the policy reads it |
    | `memory` | a `MemoryError` that nobody caught | the same |
    | `said` | `sys.exit` with a message, which is on stderr | empty |
    | empty | anything else, or the child sent nothing | empty |
    """

    end: str = ""
    text: str = ""

    @classmethod
    def read(cls, message: wire.Message) -> Told:
        """Parses the message of a child; raises `wire.ProtocolError` if it is malformed."""
        end, text = message.get("end"), message.get("text")
        if end not in ("", "exception", "memory", "said") or not isinstance(text, str):
            raise wire.ProtocolError("not the end of a call")
        return cls(end=end, text=text)


@dataclasses.dataclass(eq=False)
class Call:
    """A call from its arrival to its result."""

    id: int
    code: str
    timeout: float
    session: Session | None
    attempts: int = 0  # number of attempts that were cut short
    dead_children: int = 0  # number of children that died before they took it
    canceled: bool = False
    state_lost: bool = False
    process: Process | None = None
    out: Capture | None = None
    err: Capture | None = None
    reading: set[int] = dataclasses.field(default_factory=set)  # streams that have not ended
    began: float = 0.0
    deadline: float = 0.0  # of the call; after it was killed, of the report of its exit
    cpu_before: float = 0.0
    ended_by: str = ""  # a key of ENDED, or "unreported"
    control_lost: bool = False
    taken: bool = True  # the child received the code, as far as is known
    told: Told | None = None  # the child's account of the end of its code
    exit: wire.Message | None = None  # the zygote's report of how the process ended
    drain_until: float = 0.0

    def __lt__(self, other: Call) -> bool:
        return self.id < other.id

    @property
    def in_session(self) -> bool:
        """True if its session has an interpreter."""
        return self.session is not None and self.session.process is not None

    @property
    def runaway(self) -> bool:
        return any(stream is not None and stream.runaway for stream in (self.out, self.err))

    @property
    def loss(self) -> str:
        """Why its session's channel is lost: the process ended, or the code seized the channel."""
        return "unreported" if self.process is not None and self.process.exited() else "control"

    @property
    def due(self) -> float:
        """The latest time for the next look at this call."""
        waiting = self.exit is not None or self.control_lost
        return min(self.deadline, self.drain_until) if waiting else self.deadline

    def take(self, process: Process, limits: dict[str, Any], now: float) -> None:
        """Assigns the call to a process and starts its clock."""
        keep, stop_at = limits["output_bytes"], limits["runaway_bytes"]
        self.process = process
        self.out = Capture(process.stdout, keep, stop_at)
        self.err = Capture(process.stderr, keep, stop_at)
        self.reading = {process.stdout, process.stderr}
        self.began, self.deadline = now, now + self.timeout

    def read(self, fd: int) -> bool:
        """Reads what a stream holds; False when nothing more will be read from it."""
        stream = self.out if self.out is not None and fd == self.out.fd else self.err
        assert stream is not None
        if stream.read():
            return True
        self.reading.discard(fd)
        return False

    def read_report(self, message: wire.Message) -> tuple[int, int]:
        """Exit status and peak memory in bytes, from the report of a session's child."""
        status, peak = message.get("status"), message.get("peak")
        due = message.get("done") == self.id
        if not (due and isinstance(status, int) and isinstance(peak, int)):
            raise wire.ProtocolError("not the report of a call")
        self.told = Told.read(message)
        return status & 0xFF, peak

    def reset(self) -> None:
        """Restores the state of its arrival, for another attempt."""
        self.ended_by, self.taken = "", True
        self.out = self.err = self.exit = self.told = None
        self.reading = set()

    def result(
        self, exit_code: int, *, cpu: float, peak: int, limits: dict[str, Any]
    ) -> wire.Message:
        """The fields of the `ToolResult` of this call, which has ended."""
        assert self.out is not None and self.err is not None
        (stdout, dropped_out), (stderr, dropped_err) = self.out.text(), self.err.text()
        told = self.told or Told()
        # It may have ended by itself before all that it wrote was read.
        ended_by = self.ended_by or ("output_limit" if self.runaway else "")
        status, reason = outcome(ended_by, exit_code, cpu, told, stderr, limits)
        return {
            "id": self.id,
            "status": status,
            "stdout": stdout,
            "stderr": with_last_line(stderr, reason),
            "exception": told.text if status == "error" and exit_code == 1 else "",
            "truncated_bytes": dropped_out + dropped_err,
            "wall_seconds": time.monotonic() - self.began,
            "cpu_seconds": cpu,
            "peak_bytes": peak,
            "state_lost": self.state_lost,
        }


@dataclasses.dataclass(eq=False)
class Session:
    """The calls of one name. It has an interpreter from its first call until that is lost."""

    process: Process | None = None
    running: Call | None = None
    queued: bool = False  # one of its calls waits in the queue
    waiting: deque[Call] = dataclasses.field(default_factory=deque)  # behind it, in order
    lost: bool = False  # its interpreter is gone and no result has reported that yet
    idle_since: float = 0.0
    idle_cpu: float = 0.0

    @property
    def busy(self) -> bool:
        return self.queued or self.running is not None

    def rest(self) -> float:
        """Marks the session as idle after a call; returns the processor time used so far."""
        assert self.process is not None
        self.idle_since, self.idle_cpu = time.monotonic(), self.process.cpu_seconds()
        return self.idle_cpu


def outcome(
    ended_by: str,
    exit_code: int,
    cpu_seconds: float,
    told: Told,
    stderr: str,
    limits: dict[str, Any],
) -> tuple[str, str]:
    """Status of a call, and the reason where the call's own stderr does not state it."""
    if ended_by:
        status, reason = ENDED[ended_by]
        return status, reason.format(**limits)
    # SIGKILL follows when SIGXCPU was ignored. On virtual machines the limit may fire early by the
    # measured time (at 0.8 s for 1 s, say), so half of the limit is taken as the sign.
    out_of_cpu = cpu_seconds >= limits["cpu_seconds"] / 2
    if exit_code == -signal.SIGXCPU or (exit_code == -signal.SIGKILL and out_of_cpu):
        return "cpu_limit", ""
    if exit_code < 0:
        return "crash", f"killed by {signal_name(-exit_code)}"
    if exit_code == 0:
        return "ok", ""
    if exit_code == 1 and (told.end == "memory" or (not told.end and _ends_for_memory(stderr))):
        return "memory", ""
    # With a status other than 1 the code went on after its account, in an exit handler say.
    return "error", "" if exit_code == 1 and told.end else f"exit status {exit_code}"


def _ends_for_memory(stderr: str) -> bool:
    """True if stderr ends with a `MemoryError`: a child without memory can say no more."""
    return bool(_MEMORY_ERROR.match(stderr.rstrip().rpartition("\n")[2]))


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
