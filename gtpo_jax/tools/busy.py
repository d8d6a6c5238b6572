"""The error of a tool whose queue is full, and how to wait until it has room."""

from __future__ import annotations

import time
from concurrent import futures

from gtpo_jax import types

_WAIT_SECONDS = 0.01  # between two attempts


class ExecutorBusy(RuntimeError):
    """The queue is full and `submit` took nothing; the caller may submit the same call later."""


def submit_when_free(
    tool: types.Tool, code: str, *, timeout: float | None = None
) -> futures.Future[types.ToolResult]:
    """Calls `tool.submit`, and waits as long as the queue is full.

    It blocks the caller, so never call it from a callback of the tool's own futures.
    """
    while True:
        try:
            return tool.submit(code, timeout=timeout)
        except ExecutorBusy:
            time.sleep(_WAIT_SECONDS)
