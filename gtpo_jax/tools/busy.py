"""A tool whose queue is full, common to all tools."""

from __future__ import annotations

import time
from concurrent import futures

from gtpo_jax import types

_WAIT_SECONDS = 0.01  # between two attempts


class ExecutorBusy(RuntimeError):
    """`submit` found the queue full and took nothing; the same call may be made again later."""


def submit_when_free(
    tool: types.Tool, code: str, *, timeout: float | None = None
) -> futures.Future[types.ToolResult]:
    """`tool.submit`, however long it takes until the queue has room.

    For who has nothing else to do; not for a callback of the tool's own futures.
    """
    while True:
        try:
            return tool.submit(code, timeout=timeout)
        except ExecutorBusy:
            time.sleep(_WAIT_SECONDS)
