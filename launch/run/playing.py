"""Scripted demonstrations, played with the tool while their progress is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from gtpo_jax.types import Tool, ToolResult
from launch.run import display


class CountingTool:
    """A tool that reports after each program how many have run."""

    def __init__(self, tool: Tool, tell: Callable[[int], None]):
        self._tool, self._tell, self._done = tool, tell, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    def submit(self, code: str, *, timeout: float | None = None) -> Future[ToolResult]:
        call = self._tool.submit(code, timeout=timeout)
        call.add_done_callback(self._count)
        return call

    def _count(self, call: Future[ToolResult]) -> None:
        self._done += 1
        self._tell(self._done)


@contextlib.contextmanager
def shown(tool: Tool) -> Iterator[CountingTool]:
    """The tool, with a line or a bar that counts the programs of demonstrations."""
    with display.working("programs of demonstrations") as tell:
        yield CountingTool(tool, tell)
