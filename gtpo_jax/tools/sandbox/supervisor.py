"""The supervisor: a trusted loop that owns the queue, the deadlines and the output of all calls.

    from the trainer      first the settings: {"limits", "packages", "folders", "writable", "allow",
                          "max_running", "max_sessions", "session_idle_seconds",
                          "lost_sessions"}; then
                          {"id", "code", "timeout", "session"}, {"cancel": id}, {"end": session}
    to the trainer        {"report": property → layers or None} or {"broken": reason}; then for each
                          call {"id"} and the fields of a `ToolResult`

One thread and one `select` loop; nothing in it waits. User code reaches it only as bytes on a
call's streams and, from a session, as small messages about that session alone.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import resource
import selectors
import signal
import socket
import sys
import time
from collections import OrderedDict

from . import calls, wire
from .calls import Call, Session
from .nursery import Nursery
from .process import Process

TICK_SECONDS = 0.05  # how often threads and processor time of what runs are looked at
DRAIN_SECONDS = 0.05  # how long output is still read after a call's process has ended
IDLE_SECONDS = 1.0  # how often sessions between their calls are looked at
IDLE_CPU_SECONDS = 1.0  # that threads of a session may use while no call of it runs
SPARE = 4  # children that wait for code
ATTEMPTS = 2  # of a call whose zygote died under it
REMEMBERED = 10_000  # sessions without an interpreter, of which the loss of one is still known


class Supervisor:
    """The loop. Each source of events has a callback that takes what `select` said of it."""

    def __init__(self, trainer: wire.Channel, settings: wire.Message) -> None:
        self.trainer = trainer
        self.limits = settings["limits"]
        self.allow = set(settings["allow"])
        self.max_running = settings["max_running"]
        self.max_sessions = settings["max_sessions"]
        self.session_idle_seconds = settings["session_idle_seconds"]
        self.selector = selectors.DefaultSelector()
        self.calls: dict[int, Call] = {}
        self.running: set[Call] = set()
        # Two queues in order of arrival: calls that need a child, and calls whose session has one.
        self.fresh: list[Call] = []
        self.warm: list[Call] = []
        self.sessions: OrderedDict[str, Session] = OrderedDict()  # the longest unused first
        for name in settings["lost_sessions"]:  # with a supervisor before this one
            self.sessions[name] = Session(name, lost=True)
        self.live_sessions = 0  # that have an interpreter
        self.reported = False
        self.check_at = self.idle_check_at = 0.0
        spare = min(SPARE, self.max_running)
        self.nursery = Nursery(
            self,
            self.selector,
            {k: settings[k] for k in ("limits", "packages", "folders", "writable", "allow")},
            spare=spare,
            places=self.max_running + self.max_sessions + spare,
        )

    def loop(self) -> None:
        """Serves until the trainer closes its end, be it by dying."""
        self.trainer.socket.setblocking(False)
        self.selector.register(self.trainer.socket, selectors.EVENT_READ, self._on_trainer)
        self.nursery.start()
        while True:
            timeout = max(0.0, self.check_at - time.monotonic())
            for key, events in self.selector.select(timeout):
                key.data(events)
            now = time.monotonic()
            if now >= self.check_at:
                self._check(now)
            self._dispatch()

    def _listen(self, channel: wire.Channel) -> None:
        """Asks to be told when a channel takes more, as long as it did not take everything."""
        key = self.selector.get_map().get(channel.socket)
        if key is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.pending else 0)
        if key.events != events:
            self.selector.modify(channel.socket, events, key.data)

    # The trainer.

    def _on_trainer(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.trainer.flush()
            self._listen(self.trainer)
        if events & selectors.EVENT_READ:
            for message in self.trainer.receive():
                if "id" in message:
                    self._accept(message)
                elif "cancel" in message:
                    self._cancel(message["cancel"])
                else:
                    self._end_session(message["end"])

    def _tell(self, message: wire.Message) -> None:
        self.trainer.send(message)
        self._listen(self.trainer)

    def _accept(self, message: wire.Message) -> None:
        name = message["session"]
        session = None
        if name is not None:
            session = self.sessions.setdefault(name, Session(name))
            self.sessions.move_to_end(name)
        call = Call(message["id"], message["code"], message["timeout"], session)
        self.calls[call.id] = call
        self._enqueue(call)

    def _enqueue(self, call: Call) -> None:
        session = call.session
        if session is None:
            heapq.heappush(self.fresh, call)
        elif session.busy:
            session.waiting.append(call)
        else:
            session.queued = True
            heapq.heappush(self.warm if call.in_session else self.fresh, call)
        if not self.nursery.running:
            self.nursery.start()

    def _cancel(self, number: int) -> None:
        call = self.calls.get(number)
        if call is None:
            return  # its result is on the way
        call.canceled = True
        if call.process is not None:
            self._end(call, "session")

    def _answer(self, call: Call, message: wire.Message) -> None:
        """The call's result, if the trainer still waits for it, and the next one of its session."""
        if self.calls.pop(call.id, None) is not None and not call.canceled:
            self._tell(message)
        session = call.session
        if session is not None and not session.busy and session.waiting:
            self._enqueue(session.waiting.popleft())

    def _end_session(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session is None:
            return
        session.waiting.clear()
        for call in [call for call in self.calls.values() if call.session is session]:
            if call is session.running:
                self._end(call, "session")
            else:
                self._answer(call, calls.failure(call, "the session was ended before the call"))
                call.canceled = True
        if session.process is not None:
            session.process.kill()
            self._lose(session)

    # Starting calls.

    def _dispatch(self) -> None:
        while len(self.running) < self.max_running:
            call = self._next()
            if call is None:
                break
            self._start(call)
        self.nursery.provide(min(len(self.fresh), self.max_running - len(self.running)))

    def _next(self) -> Call | None:
        """The oldest call that can start, off its queue; None if none can."""
        for queue in (self.fresh, self.warm):
            while queue and queue[0].canceled:
                self._drop(heapq.heappop(queue))
        while self.warm and not self.warm[0].in_session:  # its interpreter died since
            heapq.heappush(self.fresh, heapq.heappop(self.warm))
        queues = [self.warm] if self.warm else []
        if self.fresh and self.nursery.ready and self._may_open(self.fresh[0].session):
            queues.append(self.fresh)
        return heapq.heappop(min(queues, key=lambda queue: queue[0])) if queues else None

    def _drop(self, call: Call) -> None:
        """Forgets a call that was canceled before it started."""
        if call.session is not None:
            call.session.queued = False
        self._answer(call, {})

    def _may_open(self, session: Session | None) -> bool:
        """Whether there is room for the interpreter of a session; the longest idle one makes it."""
        if session is None or self.live_sessions < self.max_sessions:
            return True
        for idle in self.sessions.values():
            if idle.process is not None and not idle.busy:
                idle.process.kill()
                self._lose(idle)
                return True
        return False

    def _start(self, call: Call) -> None:
        session, now = call.session, time.monotonic()
        process = session.process if session is not None else None
        if process is None:
            process = self.nursery.ready.popleft()
            for fd in (process.stdout, process.stderr):
                callback = functools.partial(self._on_output, process, fd)
                self.selector.register(fd, selectors.EVENT_READ, callback)
        if session is not None:
            call.cpu_before = process.cpu_seconds()
            call.state_lost, session.lost = session.lost, False
            session.queued, session.running = False, call
            self.live_sessions += session.process is None
            session.process, process.session = process, session
        call.take(process, self.limits, now)
        self.running.add(call)
        self.check_at = min(self.check_at, call.deadline, now + TICK_SECONDS)
        with contextlib.suppress(wire.Closed):  # it died meanwhile, and its exit will tell
            process.control.send({"id": call.id, "code": call.code, "session": session is not None})
            self._listen(process.control)

    # What children do.

    def on_control(self, process: Process, events: int) -> None:
        """A child is ready, or a session's call is done, or the socket has room or an end."""
        if process.closed:
            return
        try:
            if events & selectors.EVENT_WRITE:
                process.control.flush()
                self._listen(process.control)
            if events & selectors.EVENT_READ:
                for message in process.control.receive():
                    self._on_message(process, message)
        except (wire.Closed, wire.ProtocolError):
            # Of a single call this is its start, of a session most often the end of its process.
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(process.control.socket)
            call = process.call
            if call is not None and call.session is not None:
                call.control_lost = True
                self._wait_for_rest(call)

    def _on_message(self, process: Process, message: wire.Message) -> None:
        call = process.call
        if not process.ready:
            if "ready" not in message:
                raise wire.ProtocolError("not what a new child says")
            process.ready = True
            self.nursery.on_ready(process)
        elif call is not None and call.session is not None and message.get("done") == call.id:
            status, peak = message.get("status"), message.get("peak")
            if not isinstance(status, int) or not isinstance(peak, int):
                raise wire.ProtocolError("not the report of a call")
            self._finish_in_session(call, status & 0xFF, peak)
        else:
            raise wire.ProtocolError("not a message that is due")

    def _on_output(self, process: Process, fd: int, events: int) -> None:
        if process.closed:
            return
        call = process.call
        if call is None:
            # Threads of a session write between its calls; or a single call has its result.
            if not process.discard(fd):
                self.selector.unregister(fd)
        elif not call.read(fd):
            self.selector.unregister(fd)
            if call.runaway:
                self._end(call, "output_limit")
            self._finish_if_read(call)

    def on_exit(self, process: Process, message: wire.Message) -> None:
        """The zygote has seen a child end."""
        if process.session is not None and process.session.process is process:
            self._lose(process.session)
        call = process.call
        if call is None:
            self.nursery.close(process)
        else:
            call.exit = message
            self._wait_for_rest(call)
            self._finish_if_read(call)

    def _lose(self, session: Session) -> None:
        """The session has no interpreter any more; its next call starts in a new one."""
        assert session.process is not None
        session.process.session = session.process = None
        self.live_sessions -= 1
        if session.running is not None:
            session.running.state_lost = True
        else:
            session.lost = True

    # Ending calls.

    def _end(self, call: Call, reason: str) -> None:
        """Kills the call's process. The result comes when the zygote has seen it end."""
        assert call.process is not None
        call.process.kill()
        if not call.ended_by:
            call.ended_by = reason
            call.deadline = time.monotonic() + self.limits["guard_seconds"]

    def _wait_for_rest(self, call: Call) -> None:
        call.drain_until = time.monotonic() + DRAIN_SECONDS
        self.check_at = min(self.check_at, call.drain_until)

    def _finish_if_read(self, call: Call) -> None:
        if call.exit is not None and not call.reading:
            self._finish(call)

    def _finish(self, call: Call) -> None:
        """The result of a call whose process has ended."""
        assert call.exit is not None and call.process is not None
        process = call.process
        message = call.result(
            calls.exit_code(call.exit),
            cpu=max(0.0, call.exit["cpu"] - call.cpu_before),
            peak=call.exit["peak"],
            limits=self.limits,
        )
        self._release(call)
        self.nursery.close(process)
        self._answer(call, message)

    def _finish_in_session(self, call: Call, status: int, peak: int) -> None:
        """The result of a call whose interpreter stays for the next one."""
        assert call.out is not None and call.err is not None
        if call.ended_by:
            return  # it is being killed, whatever it says
        call.out.drain()
        call.err.drain()
        if call.runaway:
            self._end(call, "output_limit")
            return
        session, process = call.session, call.process
        assert session is not None and process is not None
        session.idle_since, session.idle_cpu = time.monotonic(), process.cpu_seconds()
        cpu = session.idle_cpu - call.cpu_before
        message = call.result(status, cpu=cpu, peak=peak, limits=self.limits)
        self._release(call)
        self._answer(call, message)

    def _release(self, call: Call) -> None:
        self.running.discard(call)
        assert call.process is not None
        call.process.call = call.process = None
        if call.session is not None:
            call.session.running = None

    # Time.

    def _check(self, now: float) -> None:
        """What is due: deadlines, limits that are looked at, sessions that are idle too long."""
        for call in list(self.running):
            if call.ended_by and now >= call.deadline:
                self.nursery.restart("the zygote did not report the end of a call")
                break
            if call.exit is not None or call.control_lost:
                if now >= call.drain_until:
                    self._finish(call) if call.exit is not None else self._end(call, "control")
            elif not call.ended_by:
                self._check_running(call, now)
        self.nursery.check(now)
        if now >= self.idle_check_at:
            self.idle_check_at = now + IDLE_SECONDS
            self._check_idle(now)
        due = [self.idle_check_at]
        due += [min(call.due, now + TICK_SECONDS) for call in self.running]
        self.check_at = min(due)

    def _check_running(self, call: Call, now: float) -> None:
        process = call.process
        assert process is not None
        if now >= call.deadline:
            self._end(call, "timeout")
        elif process.threads() > self.limits["threads"]:
            self._end(call, "threads")
        elif call.session is None:
            pass  # its processor time is limited by the kernel
        elif process.cpu_seconds() - call.cpu_before > self.limits["cpu_seconds"]:
            self._end(call, "cpu_limit")

    def _check_idle(self, now: float) -> None:
        for session in self.sessions.values():
            process = session.process
            if process is None or session.busy:
                continue
            idle = now - session.idle_since
            used = process.cpu_seconds() - session.idle_cpu
            if idle > self.session_idle_seconds or used > IDLE_CPU_SECONDS:
                process.kill()
                self._lose(session)
        for name in list(self.sessions)[: max(0, len(self.sessions) - REMEMBERED)]:
            session = self.sessions[name]
            if session.process is None and not session.busy:
                del self.sessions[name]

    # The zygote.

    def on_report(self, report: dict[str, str | None]) -> None:
        missing = [name for name, layers in report.items() if layers is None]
        if not self.reported:
            self.reported = True
            self._tell({"report": report})  # the trainer refuses, if it must
        elif not self.allow.issuperset(missing):
            raise wire.ProtocolError(f"the host no longer gives {', '.join(missing)}")

    def on_zygote_gone(self, processes: list[Process], reason: str) -> None:
        """Single calls are tried once more; what a session was doing cannot be."""
        for process in processes:
            if process.session is not None:
                self._lose(process.session)
            call = process.call
            if call is None:
                continue
            self._release(call)
            if call.ended_by:
                message = call.result(0, cpu=0.0, peak=0, limits=self.limits)
                self._answer(call, message)
            elif call.session is None and call.attempts < ATTEMPTS:
                call.reset()
                self._enqueue(call)
            else:
                self._answer(call, calls.failure(call, reason))

    def on_broken(self, reason: str) -> None:
        if not self.reported:
            self.trainer.send({"broken": reason})
            raise wire.Closed(reason)
        for call in list(self.calls.values()):
            self._answer(call, calls.failure(call, reason))
            call.canceled = True


def main(fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the trainer's
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # four for each child
    trainer = wire.Channel(socket.socket(fileno=fd))
    try:
        supervisor = Supervisor(trainer, trainer.next())
    except wire.Closed:
        return
    try:
        supervisor.loop()
    except wire.Closed:
        pass
    finally:
        supervisor.nursery.stop()
