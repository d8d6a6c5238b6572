"""A limit of processor time for a piece of work in this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_AGAIN_SECONDS = 0.02  # between repetitions: a library may swallow the first


class Spent(BaseException):
    """The time is over. Not an `Exception`, so that no library handles it as its own failure."""


@contextlib.contextmanager
def processor_seconds(seconds: float) -> Iterator[None]:
    """Raises `Spent` inside when the work takes longer; only in the main thread, for signals.

    It interrupts Python, but not a C call that never returns. For a hard limit, kill the process
    from outside.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Spent

    before = signal.signal(signal.SIGPROF, stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds, _AGAIN_SECONDS)
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_PROF, 0)
        except Spent:  # between two lines of this function
            signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
