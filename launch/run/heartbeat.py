"""Plain lines from long work where there is no terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 5.0
"""Seconds between two lines."""


class Heartbeat:
    """Prints the line of the innermost work in progress when nothing has been printed for a while.
    It runs in a thread, so that a compiler or a rollout need not know of it.
    """

    def __init__(self, print_line: Callable[[str], None]):
        self._print = print_line
        self._works: list[Callable[[], str]] = []
        self._changed = threading.Condition()
        self._printed = time.monotonic()

    def say(self, line: str, *, now: bool = False) -> None:
        """Prints a line if one is due, or in any case if `now`."""
        with self._changed:
            if now or self._left() <= 0:
                self._print_line(line)

    @contextlib.contextmanager
    def during(self, tell: Callable[[], str]) -> Iterator[None]:
        """Marks work in progress, whose line `tell` returns."""
        with self._changed:
            self._works.append(tell)
            if len(self._works) == 1:
                self._printed = time.monotonic()
                threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._works.remove(tell)
                self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while self._works:
                if self._left() <= 0:
                    self._print_line(self._works[-1]())
                self._changed.wait(max(self._left(), 0.01))

    def _left(self) -> float:
        return self._printed + LINE_SECONDS - time.monotonic()

    def _print_line(self, line: str) -> None:
        self._print(line)
        self._printed = time.monotonic()
