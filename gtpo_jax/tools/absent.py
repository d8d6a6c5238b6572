"""The tool of a run whose problems are solved without one."""

from __future__ import annotations

from concurrent.futures import Future

from gtpo_jax.types import ToolResult, ToolStatus


class NoTool:
    """Runs nothing: every call fails, and says why."""

    def submit(self, code: str, *, timeout: float | None = None) -> Future[ToolResult]:
        del code, timeout
        future: Future[ToolResult] = Future()
        future.set_result(ToolResult(status=ToolStatus.ERROR, stderr="there is no tool"))
        return future

    def close(self) -> None:
        """Nothing to close."""


def make_tool() -> NoTool:
    """For `tool.factory`."""
    return NoTool()
