"""The supervisor: a trusted loop that owns the queue, the deadlines and the output of all calls.

    from the trainer      first the settings: {"limits", "packages", "folders", "writable", "allow",
                          "max_running", "max_sessions", "session_idle_seconds",
                          "lost_sessions"}; then
                          {"id", "code", "timeout", "session"}, {"cancel": id}, {"end": session}
    to the trainer        {"report": property → layers or None} or {"broken": reason}; then for each
                          call {"id"} and the fields of a `ToolResult`

It has one thread and one `select` loop, in which nothing waits. User code reaches it only through
bytes on a call's streams, one text about how the call ended, and small messages of a session about
that session alone.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import signal
import socket
import sys
import time

from . import calls, loop, wire
from .calls import Call
from .desk import Desk
from .loop import Loop
from .nursery import Nursery
from .process import Process
from .sessions import Sessions

TICK_SECONDS = 0.05  # between checks of the threads and processor time of running calls
DRAIN_SECONDS = 0.05  # for reading output after a call's process has ended
IDLE_SECONDS = 0.2  # between checks of idle sessions
SPARE = 4  # children that wait for code
ATTEMPTS = 2  # of a call whose zygote died while it ran
DEAD_CHILDREN = 16  # that a call may get in a row before it counts as failed


class Supervisor:
    """The loop. Each event source has a callback, which gets the events that `select` reported."""

    def __init__(self, trainer: wire.Channel, settings: wire.Message) -> None:
        self.trainer = trainer
        self.limits = settings["limits"]
        self.allow = set(settings["allow"])
        self.max_running = settings["max_running"]
        self.loop = Loop()
        self.running: dict[Process, Call] = {}
        self.sessions = Sessions(
            most=settings["max_sessions"],
            idle_seconds=settings["session_idle_seconds"],
            threads=self.limits["threads"],
            lost=settings["lost_sessions"],
        )
        self.desk = Desk(trainer, self.loop, self.sessions)
        self.reported = False
        self.idle_check_at = 0.0
        spare = min(SPARE, self.max_running)
        self.nursery = Nursery(
            self,
            self.loop,
            {k: settings[k] for k in ("limits", "packages", "folders", "writable", "allow")},
            spare=spare,
            places=self.max_running + settings["max_sessions"] + spare,
        )

    def serve(self) -> None:
        """Serves until the trainer closes its end or dies."""
        self.trainer.socket.setblocking(False)
        self.loop.watch(self.trainer.socket, self._on_trainer)
        self.nursery.start()
        while True:
            if self.loop.step():
                self._check(time.monotonic())
            self._dispatch()

    # The trainer.

    def _on_trainer(self, events: int) -> None:
        for message in self.desk.receive(events):
            if "id" in message:
                self.desk.accept(message)
                if not self.nursery.running:  # the machine was broken; it may have recovered
                    self.nursery.start()
            elif "cancel" in message:
                self._cancel(message["cancel"])
            else:
                self._end_session(message["end"])

    def _cancel(self, number: int) -> None:
        call = self.desk.get(number)
        if call is None:
            return  # its result is on the way
        call.canceled = True
        if call.process is not None:
            self._end(call, "session")
        else:
            self.desk.withdraw(call)

    def _end_session(self, name: str) -> None:
        session = self.sessions.pop(name)
        if session is None:
            return
        session.waiting.clear()
        for call in self.desk.calls(session):
            if call is session.running:
                self._end(call, "session")
            else:
                self.desk.fail(call, "the session was ended before the call")
                call.canceled = True
        if session.process is not None:
            session.process.kill()
            self.sessions.lose(session.process)

    # Starting calls.

    def _dispatch(self) -> None:
        while len(self.running) < self.max_running:
            call = self.desk.waiting.pop(self._may_start)
            if call is None:
                break
            self._start(call)
        self.nursery.provide(min(self.desk.waiting.fresh, self.max_running - len(self.running)))

    def _may_start(self, call: Call) -> bool:
        """True if there is a child for the call and, for a session, room for its interpreter."""
        if not self.nursery.ready:
            return False
        return call.session is None or self.sessions.make_room()

    def _start(self, call: Call) -> None:
        session, now = call.session, time.monotonic()
        process = session.process if session is not None else None
        if process is None:
            process = self.nursery.ready.popleft()
            for fd in (process.stdout, process.stderr):
                callback = functools.partial(self._on_output, process, fd)
                self.loop.watch(fd, callback)
        if session is not None:
            call.cpu_before = process.cpu_seconds()
            call.state_lost, session.lost = session.lost, False
            session.queued, session.running = False, call
            if session.process is None:
                self.sessions.give(session, process)
        call.take(process, self.limits, now)
        self.running[process] = call
        self.loop.wake_by(min(call.deadline, now + TICK_SECONDS))
        try:
            process.control.send({"id": call.id, "code": call.code, "session": session is not None})
        except wire.Closed:
            call.taken = False  # it died meanwhile, and its exit will be reported
        self.loop.listen(process.control)

    # What children do.

    def on_control(self, process: Process, events: int) -> None:
        """A child is ready, a session's call is done, or the socket has room or has ended."""
        if process.closed:
            return
        try:
            if events & loop.WRITE:
                process.control.flush()
                self.loop.listen(process.control)
            if events & loop.READ:
                for message in process.control.receive():
                    self._on_message(process, message)
        except (wire.Closed, wire.ProtocolError) as error:
            # A single call closes it at its start; a session most often by the end of its process.
            self.loop.forget(process.control.socket)
            call = self.running.get(process)
            if call is not None and isinstance(error, wire.Reset):
                call.taken = False
            elif call is not None and call.session is not None:
                call.control_lost = True
                self._wait_for_rest(call)

    def _on_message(self, process: Process, message: wire.Message) -> None:
        call = self.running.get(process)
        if not process.ready:
            if "ready" not in message:
                raise wire.ProtocolError("not what a new child says")
            process.ready = True
            self.nursery.on_ready(process)
        elif call is None or call.told is not None:
            raise wire.ProtocolError("not a message that is due")
        elif call.session is None:
            call.told = calls.Told.read(message)
        else:
            self._finish_in_session(call, message)

    def _on_output(self, process: Process, fd: int, events: int) -> None:
        if process.closed:
            return
        call = self.running.get(process)
        if call is None:
            # A session's threads write between its calls, or a single call already has its result.
            if not process.discard(fd):
                self.loop.forget(fd)
        elif not call.read(fd):
            self.loop.forget(fd)
            if call.runaway:
                self._end(call, "output_limit")
            self._finish_if_read(call)

    def on_exit(self, process: Process, message: wire.Message) -> None:
        """The zygote has seen a child end."""
        self.on_control(process, loop.READ)  # its last message, if there is one
        self.sessions.lose(process)
        call = self.running.get(process)
        if call is None:
            self.nursery.close(process)
        else:
            call.exit = message
            if call.ended_by == "unreported":
                call.ended_by = ""
            self._wait_for_rest(call)
            self._finish_if_read(call)

    # Ending calls.

    def _end(self, call: Call, reason: str) -> None:
        """Kills the call's process. The result follows when the zygote has seen it end."""
        assert call.process is not None
        call.process.kill()
        if not call.ended_by:
            call.ended_by = reason
            call.deadline = time.monotonic() + self.limits["guard_seconds"]

    def _wait_for_rest(self, call: Call) -> None:
        call.drain_until = time.monotonic() + DRAIN_SECONDS
        self.loop.wake_by(call.drain_until)

    def _finish_if_read(self, call: Call) -> None:
        if call.exit is not None and not call.reading:
            self._finish(call)

    def _finish(self, call: Call) -> None:
        """Sends the result of a call whose process has ended."""
        assert call.exit is not None and call.process is not None
        process = call.process
        if not call.taken and not call.ended_by:
            self._release(call)
            self.nursery.close(process)
            call.dead_children += 1
            again = call.dead_children < DEAD_CHILDREN
            self._try_again(call, again, "the processes of the call died before it began")
            return
        message = call.result(
            calls.exit_code(call.exit),
            cpu=max(0.0, call.exit["cpu"] - call.cpu_before),
            peak=call.exit["peak"],
            limits=self.limits,
        )
        self._release(call)
        self.nursery.close(process)
        self.desk.answer(call, message)

    def _finish_in_session(self, call: Call, report: wire.Message) -> None:
        """Sends the result of a call whose interpreter stays for the next one."""
        assert call.out is not None and call.err is not None
        status, peak = call.read_report(report)
        if call.ended_by:
            return  # it is being killed, so its report does not count
        call.out.drain()
        call.err.drain()
        if call.runaway:
            self._end(call, "output_limit")
            return
        assert call.session is not None
        cpu = call.session.rest() - call.cpu_before
        message = call.result(status, cpu=cpu, peak=peak, limits=self.limits)
        self._release(call)
        self.desk.answer(call, message)

    def _release(self, call: Call) -> None:
        assert call.process is not None
        del self.running[call.process]
        call.process = None
        if call.session is not None:
            call.session.running = None

    # Time.

    def _check(self, now: float) -> None:
        """Checks deadlines, limits and idle sessions, and sets the next alarm."""
        for call in list(self.running.values()):
            if call.ended_by and now >= call.deadline:
                self.nursery.restart("the zygote did not report the end of a call")
                break
            if call.exit is not None or call.control_lost:
                if now >= call.drain_until:
                    self._finish(call) if call.exit is not None else self._end(call, call.loss)
            elif not call.ended_by:
                self._check_running(call, now)
        self.nursery.check(now)
        if now >= self.idle_check_at:
            self.idle_check_at = now + IDLE_SECONDS
            self.sessions.check(now)
        due = [self.idle_check_at]
        due += [min(call.due, now + TICK_SECONDS) for call in self.running.values()]
        self.loop.set_alarm(min(due))

    def _check_running(self, call: Call, now: float) -> None:
        process = call.process
        assert process is not None
        if now >= call.deadline:
            # The zygote may be what hangs, which is no fault of the call.
            self._end(call, "unreported" if process.exited() else "timeout")
        elif process.threads() > self.limits["threads"]:
            self._end(call, "threads")
        elif call.session is None:
            pass  # the kernel limits its processor time
        elif process.cpu_seconds() - call.cpu_before > self.limits["cpu_seconds"]:
            self._end(call, "cpu_limit")

    # The zygote.

    def on_report(self, report: dict[str, str | None]) -> None:
        missing = [name for name, layers in report.items() if layers is None]
        if not self.reported:
            self.reported = True
            self.desk.tell({"report": report})  # the trainer refuses if it must
        elif not self.allow.issuperset(missing):
            raise wire.ProtocolError(f"the host no longer gives {', '.join(missing)}")

    def on_zygote_gone(self, processes: list[Process], reason: str) -> None:
        """Retries single calls once; a session's call cannot be repeated."""
        for process in processes:
            self.sessions.lose(process)
            call = self.running.get(process)
            if call is None:
                continue
            self._release(call)
            if call.ended_by not in ("", "unreported"):
                message = call.result(0, cpu=0.0, peak=0, limits=self.limits)
                self.desk.answer(call, message)
            else:
                call.attempts += 1
                self._try_again(call, call.attempts < ATTEMPTS, reason)

    def _try_again(self, call: Call, again: bool, reason: str) -> None:
        if again and call.session is None:
            call.reset()
            self.desk.enqueue(call)
        else:
            self.desk.fail(call, reason)

    def on_broken(self, reason: str) -> None:
        if not self.reported:
            self.desk.tell({"broken": reason})
            raise wire.Closed(reason)
        for call in self.desk.calls():
            self.desk.fail(call, reason)
            call.canceled = True


def main(fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the trainer
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a child takes four
    trainer = wire.Channel(socket.socket(fileno=fd))
    with contextlib.suppress(wire.Closed):
        supervisor = Supervisor(trainer, trainer.next())
        try:
            supervisor.serve()
        finally:
            supervisor.nursery.stop()
