"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

CONSOLE = Console()
LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Display:
    """One phase's bar with its latest figures."""

    def __init__(self, phase: str, total: int, done: int = 0):
        self._phase, self._total = phase, total
        self._last_line = -LINE_SECONDS
        self._progress = Progress(
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=CONSOLE,
            disable=not CONSOLE.is_terminal,
        )
        self._task = self._progress.add_task(phase, total=total, completed=done, figures="")

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        """Shows `done` of the total and the figures."""
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        self._progress.update(self._task, completed=done, figures=text)
        now = time.monotonic()
        due = now - self._last_line >= LINE_SECONDS or done == self._total
        if not CONSOLE.is_terminal and due:
            self._last_line = now
            CONSOLE.print(f"{self._phase} {done}/{self._total}  {text}", highlight=False)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
