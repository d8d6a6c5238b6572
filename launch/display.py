"""What a person sees while a run goes on: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from gtpo_jax.rollout import RolloutProgress

CONSOLE = Console()
PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
"""How a line of text is printed: as it is, and in one line."""
LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal to draw a bar on."""
ROLLOUT_SECONDS = 0.1
"""Seconds between two figures of a rollout under way, which tells of itself far more often."""

OnProgress = Callable[[RolloutProgress], None]


class Display:
    """One phase's bar with its latest figures."""

    def __init__(self, phase: str, total: int, done: int = 0):
        self._phase, self._total = phase, total
        self._last_line = -LINE_SECONDS
        self.progress = _make_progress()
        self._task = self.progress.add_task(phase, total=total, completed=done, figures="")

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        """Shows `done` of the total and the figures."""
        text = _text(figures)
        self.progress.update(self._task, completed=done, figures=text)
        now = time.monotonic()
        due = now - self._last_line >= LINE_SECONDS or done == self._total
        if not CONSOLE.is_terminal and due:
            self._last_line = now
            CONSOLE.print(f"{self._phase} {done}/{self._total}  {text}", highlight=False)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()


def skipped_update(step: int, names: Sequence[str]) -> None:
    """Says that an update was skipped in a step, for gradients that are not finite."""
    if names:
        shown = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        CONSOLE.print(
            f"step {step + 1}: an update was skipped, the gradient of {shown} is not finite",
            style="red",
            highlight=False,
        )


@contextlib.contextmanager
def rollout(name: str, bar: Display | None = None) -> Iterator[OnProgress | None]:
    """A bar for a rollout under way, under that of the phase or alone; gone when the rollout ends.

    Gives the `on_progress` of the rollout; None where there is no terminal to draw on.
    """
    if not CONSOLE.is_terminal:
        yield None
        return
    with _make_progress() if bar is None else contextlib.nullcontext(bar.progress) as drawn:
        task = drawn.add_task(name, total=None, figures="")
        try:
            yield _follow(drawn, task)
        finally:
            drawn.remove_task(task)


def _follow(drawn: Progress, task: TaskID) -> OnProgress:
    """Writes into the bar where a rollout stands, from the first call on."""
    began = time.monotonic()
    looked = began - ROLLOUT_SECONDS

    def on_progress(rollout: RolloutProgress) -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked < ROLLOUT_SECONDS:
            return
        looked = now
        figures = {
            "tokens/s": rollout.sampled_tokens / max(now - began, ROLLOUT_SECONDS),
            "rows": rollout.active_rows,
            "tools": rollout.tools_in_flight,
        }
        drawn.update(task, completed=rollout.finished, total=rollout.total, figures=_text(figures))

    return on_progress


def _make_progress() -> Progress:
    return Progress(
        TextColumn("[bold]{task.description:<12}"),
        BarColumn(bar_width=24),  # the first to shrink on a narrow terminal
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=CONSOLE,
        disable=not CONSOLE.is_terminal,
    )


def _text(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: float) -> str:
    whole = isinstance(value, int) or abs(value) >= 100
    return f"{value:,.0f}" if whole else f"{value:.3f}"
