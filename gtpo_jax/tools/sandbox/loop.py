"""The `select` loop of the supervisor: event sources with callbacks, and one alarm."""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable
from typing import Protocol

from . import wire

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Source(Protocol):
    def fileno(self) -> int: ...


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._alarm = 0.0

    def watch(self, source: Source | int, callback: Callable[[int], None]) -> None:
        """Calls back with `READ`, `WRITE` or both when the source is ready or has ended."""
        self._selector.register(source, READ, callback)

    def forget(self, source: Source | int) -> None:
        """Stops watching the source, if it is watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def listen(self, channel: wire.Channel) -> None:
        """Watches for room in a channel as long as it has unsent bytes."""
        key = self._selector.get_map().get(channel.socket)
        events = READ | (WRITE if channel.pending else 0)
        if key is not None and key.events != events:
            self._selector.modify(channel.socket, events, key.data)

    def wake_by(self, when: float) -> None:
        self._alarm = min(self._alarm, when)

    def set_alarm(self, when: float) -> None:
        self._alarm = when

    def step(self) -> bool:
        """Waits for events or the alarm and calls back; True if the alarm is due."""
        for key, events in self._selector.select(max(0.0, self._alarm - time.monotonic())):
            key.data(events)
        return time.monotonic() >= self._alarm
