"""Sessions: interpreters that survive between the calls of one trajectory, and their limits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .calls import Session
from .process import Process

IDLE_CPU_SECONDS = 0.2  # that a session's threads may use between its calls
REMEMBERED = 10_000  # sessions without an interpreter whose loss is remembered


class Sessions:
    """All sessions by name; at most `most` of them have an interpreter."""

    def __init__(
        self, *, most: int, idle_seconds: float, threads: int, lost: Iterable[str]
    ) -> None:
        self._most, self._idle_seconds, self._threads = most, idle_seconds, threads
        self._by_process: dict[Process, Session] = {}  # those that have an interpreter
        # The longest unused first.
        self._by_name = OrderedDict((name, Session(lost=True)) for name in lost)

    def get(self, name: str) -> Session:
        session = self._by_name.setdefault(name, Session())
        self._by_name.move_to_end(name)
        return session

    def pop(self, name: str) -> Session | None:
        return self._by_name.pop(name, None)

    def give(self, session: Session, process: Process) -> None:
        """Makes the process the interpreter of the session."""
        session.process = process
        self._by_process[process] = session

    def lose(self, process: Process) -> None:
        """Takes an interpreter from its session, if it has one.

        The session's next call starts in a new interpreter and learns of the loss.
        """
        session = self._by_process.pop(process, None)
        if session is None:
            return
        session.process = None
        if session.running is not None and not session.running.canceled:
            session.running.state_lost = True
        else:
            session.lost = True

    def make_room(self) -> bool:
        """Ends the longest idle interpreter if another needs its room; False if none is idle."""
        if len(self._by_process) < self._most:
            return True
        for session in self._by_name.values():
            if session.process is not None and not session.busy:
                self._end(session)
                return True
        return False

    def check(self, now: float) -> None:
        """Ends interpreters that were idle for too long or are busy without a call."""
        for session in self._by_name.values():
            if session.process is None or session.busy:
                continue
            signs = (
                now - session.idle_since > self._idle_seconds,
                session.process.cpu_seconds() - session.idle_cpu > IDLE_CPU_SECONDS,
                session.process.threads() > self._threads,
            )
            if any(signs):
                self._end(session)
        for name in list(self._by_name)[: max(0, len(self._by_name) - REMEMBERED)]:
            session = self._by_name[name]
            if session.process is None and not session.busy:
                del self._by_name[name]

    def _end(self, session: Session) -> None:
        assert session.process is not None
        session.process.kill()
        self.lose(session.process)
