"""The refusal of a full queue, common to all tools."""

from __future__ import annotations


class ExecutorBusy(RuntimeError):
    """`submit` found the queue full and took nothing; the same call may be made again later."""
