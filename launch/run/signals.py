"""Being told to stop: SIGTERM by a host that is wanted for something else, Ctrl-C by a person.

Between steps nothing is under way that could be lost: SIGTERM raises `Preempted` where it comes, as
Ctrl-C raises KeyboardInterrupt. Within `AfterStep` both wait for the step to end. A process that is
started with SIGINT ignored, as a shell without job control starts what it puts in the background,
goes on ignoring it: that Ctrl-C is meant for others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator

import jax

from gtpo_jax.devices import processes
from launch.run import display


class Preempted(BaseException):
    """SIGTERM came. With a message: all processes have saved the same step and end together."""


go_on = ""
"""The command that goes on from what this process has saved; empty before its first checkpoint."""


def interruptible() -> bool:
    """False where Ctrl-C is ignored and SIGTERM alone stops this process."""
    return signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def how_to_go_on(command: str) -> str:
    """The words that tell a person to run a command, in as many processes as there are."""
    everywhere = " in every process" if jax.process_count() > 1 else ""
    return f"go on with `{command}`{everywhere}"


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """SIGTERM raises `Preempted` inside. From then on this process is ending and takes no other."""
    # In a run of several processes JAX would take the signal for itself.
    jax.config.update("jax_enable_preemption_service", False)

    def handle(signum, frame) -> None:
        _ignore()
        raise Preempted

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, previous)


class AfterStep:
    """Within it SIGTERM and the first Ctrl-C are remembered; a second Ctrl-C interrupts at once."""

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
        if kind is None and self._told is not None:  # it came after the last step
            signal.raise_signal(self._told)

    def told(self) -> signal.Signals | None:
        """What told this or another process to stop; to be asked by all, once a step."""
        found = set(processes.gather_objects(self._told)) - {None}
        return signal.SIGTERM if signal.SIGTERM in found else next(iter(found), None)

    def stop(self, signum: signal.Signals, message: str) -> BaseException:
        """What to raise. SIGTERM is ignored from here to the end of the process."""
        if signum != signal.SIGTERM:
            return KeyboardInterrupt(message)
        _ignore()
        return Preempted(message)

    def _interrupt(self, signum, frame) -> None:
        self._told = self._told or signal.SIGINT
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])

    def _terminate(self, signum, frame) -> None:
        self._told = signal.SIGTERM


@functools.cache  # a run of several phases says it once
def tell_who_is_heard() -> None:
    """Says what stops a process that ignores Ctrl-C."""
    display.CONSOLE.print(
        f"Ctrl-C is ignored, as in the background; `kill {os.getpid()}` saves and stops",
        highlight=False,
        soft_wrap=True,
    )


def _ignore() -> None:
    # Hosts send it again, and it would end what is left to do, closing files, with another status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
