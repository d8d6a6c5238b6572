"""Stopping: SIGTERM (preemption) and Ctrl-C.

Between steps no work is lost, so SIGTERM raises `Preempted` at once, as Ctrl-C raises
KeyboardInterrupt. Within `AfterStep` both wait for the step to end. A process that starts with
SIGINT ignored keeps ignoring it: a shell without job control starts background jobs that way, and a
Ctrl-C is then meant for others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator

import jax

from gtpo_jax.devices import processes
from launch.run import display

AGAIN_SECONDS = 0.05
"""Time after which a SIGTERM whose exception was swallowed comes again."""


class Preempted(BaseException):
    """SIGTERM came. With a message: all processes have saved the same step and end together.

    `go_on` is the command that continues from the last save of this process; empty if it has saved
    nothing.
    """

    def __init__(self, *message: str, go_on: str = "") -> None:
        super().__init__(*message)
        self.go_on = go_on


def interruptible() -> bool:
    """False if Ctrl-C is ignored and only SIGTERM stops this process."""
    return signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def how_to_go_on(command: str) -> str:
    """Advice to run a command, in every process if there are several."""
    everywhere = " in every process" if jax.process_count() > 1 else ""
    return f"go on with `{command}`{everywhere}"


class _AtOnce:
    """The handler of SIGTERM between steps. It holds the command that `Preempted` names."""

    def __init__(self) -> None:
        self.go_on = ""

    def __call__(self, signum, frame) -> None:
        _ignore()
        raise Preempted(go_on=self.go_on)


def saved(go_on: str) -> None:
    """Records that something was saved, from which this command continues. Call between steps."""
    _note(signal.getsignal(signal.SIGTERM), go_on)


def _note(handler: object, go_on: str) -> None:
    if isinstance(handler, _AtOnce):  # another handler, of a notebook say, names no command
        handler.go_on = go_on


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Within this context SIGTERM raises `Preempted`. After the first one the process ignores
    SIGTERM.
    """
    # In a run of several processes JAX would take the signal for itself.
    jax.config.update("jax_enable_preemption_service", False)

    handler = _AtOnce()
    previous = signal.signal(signal.SIGTERM, handler)
    original = sys.unraisablehook

    def hook(unraisable) -> None:
        # A callback that the interpreter makes, of a weak reference for one, swallows what the
        # handler raises in it. The signal comes once more when the callback has ended.
        if not isinstance(unraisable.exc_value, Preempted):
            original(unraisable)
            return
        signal.signal(signal.SIGTERM, handler)
        threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = original
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, previous)


class AfterStep:
    """Remembers SIGTERM and the first Ctrl-C within this context; a second Ctrl-C interrupts at
    once.
    """

    def __init__(self) -> None:
        self._told: signal.Signals | None = None

    def __enter__(self) -> AfterStep:
        handlers = {signal.SIGTERM: self._terminate}
        if interruptible():
            handlers[signal.SIGINT] = self._interrupt
        else:
            tell_who_is_heard()
        self._previous = {number: signal.signal(number, f) for number, f in handlers.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        for signum, handler in self._previous.items():
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, handler)
        if kind is None and self._told is not None:  # the signal came after the last step
            signal.raise_signal(self._told)

    def saved(self, go_on: str) -> None:
        """Records that a step was saved, from which this command continues."""
        _note(self._previous[signal.SIGTERM], go_on)

    def told(self) -> signal.Signals | None:
        """The signal that stopped this or another process. All processes must ask once per step."""
        received = set(processes.gather_objects(self._told)) - {None}
        return signal.SIGTERM if signal.SIGTERM in received else next(iter(received), None)

    def stop(self, signum: signal.Signals, message: str) -> BaseException:
        """The exception to raise. After a SIGTERM the process ignores all further ones."""
        if signum != signal.SIGTERM:
            return KeyboardInterrupt(message)
        _ignore()
        return Preempted(message)

    def _interrupt(self, signum, frame) -> None:
        self._told = self._told or signal.SIGINT
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])

    def _terminate(self, signum, frame) -> None:
        self._told = signal.SIGTERM


@functools.cache  # printed once in a run of several phases
def tell_who_is_heard() -> None:
    """Prints how to stop a process that ignores Ctrl-C."""
    display.CONSOLE.print(
        f"Ctrl-C is ignored, as in the background; `kill {os.getpid()}` saves and stops",
        highlight=False,
        soft_wrap=True,
    )


def _ignore() -> None:
    # Machines send it again, which would cut short the closing of files and change the exit status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
