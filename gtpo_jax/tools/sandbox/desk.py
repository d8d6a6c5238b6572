"""The desk: calls arrive here from the trainer, and their results leave for it."""

from __future__ import annotations

from . import calls, loop, wire
from .calls import Call, Session
from .loop import Loop
from .sessions import Sessions
from .waiting import Waiting


class Desk:
    """Holds each call from its arrival to its result, and the queue of those that wait to start."""

    def __init__(self, trainer: wire.Channel, loop: Loop, sessions: Sessions) -> None:
        self._trainer, self._loop, self._sessions = trainer, loop, sessions
        self._calls: dict[int, Call] = {}
        self.waiting = Waiting()

    def receive(self, events: int) -> list[wire.Message]:
        """Handles events of the trainer's socket; returns the messages that have arrived."""
        if events & loop.WRITE:
            self._trainer.flush()
            self._loop.listen(self._trainer)
        return self._trainer.receive() if events & loop.READ else []

    def tell(self, message: wire.Message) -> None:
        self._trainer.send(message)
        self._loop.listen(self._trainer)

    def get(self, number: int) -> Call | None:
        """The call of this number; None once its result is on the way."""
        return self._calls.get(number)

    def calls(self, session: Session | None = None) -> list[Call]:
        """All calls without a result, or those of one session."""
        return [c for c in self._calls.values() if session is None or c.session is session]

    def accept(self, message: wire.Message) -> None:
        """Accepts a call that has arrived."""
        name = message["session"]
        session = None if name is None else self._sessions.get(name)
        call = Call(message["id"], message["code"], message["timeout"], session)
        self._calls[call.id] = call
        self.enqueue(call)

    def enqueue(self, call: Call) -> None:
        session = call.session
        if session is None:
            self.waiting.push(call)
        elif session.busy:
            session.waiting.append(call)
        else:
            session.queued = True
            self.waiting.push(call)

    def withdraw(self, call: Call) -> None:
        """Forgets a call that was canceled before it started."""
        session = call.session
        if session is not None and call in session.waiting:
            session.waiting.remove(call)
        elif session is not None:
            session.queued = False
        self.answer(call, {})

    def fail(self, call: Call, reason: str) -> None:
        """Answers a call that failed through no fault of its own."""
        self.answer(call, calls.failure(call, reason))

    def answer(self, call: Call, message: wire.Message) -> None:
        """Sends the result, unless the call was canceled, and queues the session's next call."""
        if self._calls.pop(call.id, None) is not None and not call.canceled:
            self.tell(message)
        session = call.session
        if session is not None and not session.busy and session.waiting:
            self.enqueue(session.waiting.popleft())
