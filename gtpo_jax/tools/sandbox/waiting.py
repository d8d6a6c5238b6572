"""The calls that wait to start, in the order of their arrival."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .calls import Call


class Waiting:
    """Two queues: calls that need a child, and calls whose session already has an interpreter.

    A call that lacks a child delays no call that can start.
    """

    def __init__(self) -> None:
        self._fresh: list[Call] = []
        self._warm: list[Call] = []

    @property
    def fresh(self) -> int:
        """The number of calls that need a child; canceled ones may be among them."""
        return len(self._fresh)

    def push(self, call: Call) -> None:
        heapq.heappush(self._warm if call.in_session else self._fresh, call)

    def pop(self, may_start: Callable[[Call], bool]) -> Call | None:
        """The oldest call that can start; `may_start` decides for one that needs a child."""
        for queue in (self._fresh, self._warm):
            while queue and queue[0].canceled:
                heapq.heappop(queue)
        while self._warm and not self._warm[0].in_session:  # its interpreter has died
            heapq.heappush(self._fresh, heapq.heappop(self._warm))
        queues = [self._warm] if self._warm else []
        if self._fresh and may_start(self._fresh[0]):
            queues.append(self._fresh)
        return heapq.heappop(min(queues, key=lambda queue: queue[0])) if queues else None
