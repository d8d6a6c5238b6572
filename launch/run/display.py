"""Progress of a run for a person: bars on a terminal, plain lines elsewhere."""

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
from launch.run.heartbeat import Heartbeat

CONSOLE = Console()
PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
"""Arguments to print a line of text literally and unwrapped."""
ROLLOUT_SECONDS = 0.1
"""Seconds between two updates of a rollout's bar; the rollout reports far more often."""

OnProgress = Callable[[RolloutProgress], None]
LINES = Heartbeat(lambda line: CONSOLE.print(line, **PLAIN))
"""The lines printed where there is no terminal."""


class Display:
    """The bar of one phase, with its latest metrics."""

    def __init__(self, phase: str, total: int, done: int = 0):
        self._phase, self._total, self._done, self._text = phase, total, done, ""
        self._began, self._stack = time.monotonic(), contextlib.ExitStack()
        self.progress = _make_progress()
        self._task = self.progress.add_task(phase, total=total, completed=done, figures="")

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        """Shows `done` of the total, and the metrics."""
        self._done, self._text = done, _text(figures)
        self.progress.update(self._task, completed=done, figures=self._text)
        if not CONSOLE.is_terminal:
            LINES.say(self._line(), now=done == self._total)

    def _line(self) -> str:
        return f"{self._phase} {self._done}/{self._total}  {self._text}"

    def _waiting_line(self) -> str:
        """The line to print while a step takes long, as the first step does because it compiles."""
        standing = self._text or "the first step, which is compiled"
        return f"{self._phase} {self._done}/{self._total}  {standing}  {_minutes(self._began)}"

    def __enter__(self) -> Display:
        self.progress.start()
        if not CONSOLE.is_terminal:
            self._stack.enter_context(LINES.during(self._waiting_line))
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()
        self.progress.stop()


@contextlib.contextmanager
def working(name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows the progress of some work: a bar on a terminal, which disappears when the work ends, or
    else a line every few seconds. Yields a function that takes the amount done so far.
    """
    began, done = time.monotonic(), 0
    progress = _make_progress(transient=True)
    task = progress.add_task(name, total=total, figures="")

    def tell(count: int) -> None:
        nonlocal done
        done = count
        progress.update(task, completed=count)

    def line() -> str:
        counted = f" {done:,}/{total:,}" if total is not None else f" {done:,}" if done else ""
        return f"{name}{counted}  {_minutes(began)}"

    if CONSOLE.is_terminal:
        with progress:
            yield tell
    else:
        with LINES.during(line):
            yield tell


def skipped_update(step: int, names: Sequence[str]) -> None:
    """Prints that an update of a step was skipped because its gradients were not finite."""
    if names:
        listed = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        CONSOLE.print(
            f"step {step + 1}: an update was skipped, the gradient of {listed} is not finite",
            style="red",
            highlight=False,
        )


@contextlib.contextmanager
def rollout(name: str, bar: Display | None = None) -> Iterator[OnProgress]:
    """A bar for a rollout, under the bar of the phase or alone, which disappears when the rollout
    ends. Without a terminal, a line every few seconds. Yields the `on_progress` of the rollout.
    """
    if not CONSOLE.is_terminal:
        with _told_in_lines(name) as on_progress:
            yield on_progress
        return
    with _make_progress() if bar is None else contextlib.nullcontext(bar.progress) as drawn:
        task = drawn.add_task(name, total=None, figures="")
        try:
            yield _follow(drawn, task)
        finally:
            drawn.remove_task(task)


@contextlib.contextmanager
def _told_in_lines(name: str) -> Iterator[OnProgress]:
    began = time.monotonic()
    standing: list[RolloutProgress] = []

    def on_progress(rollout: RolloutProgress) -> None:
        standing[:] = [rollout]

    def line() -> str:
        if not standing:
            return f"{name}  {_minutes(began)}"
        [rollout] = standing
        return f"{name} {rollout.finished}/{rollout.total}  {_text(_standing(rollout, began))}"

    with LINES.during(line):
        yield on_progress


def _standing(rollout: RolloutProgress, began: float) -> dict[str, float]:
    return {
        "tokens/s": rollout.sampled_tokens / max(time.monotonic() - began, ROLLOUT_SECONDS),
        "rows": rollout.active_rows,
        "tools": rollout.tools_in_flight,
    }


def _follow(drawn: Progress, task: TaskID) -> OnProgress:
    """Writes the progress of a rollout into the bar, from the first call on."""
    began = time.monotonic()
    looked = began - ROLLOUT_SECONDS

    def on_progress(rollout: RolloutProgress) -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked < ROLLOUT_SECONDS:
            return
        looked = now
        figures = _text(_standing(rollout, began))
        drawn.update(task, completed=rollout.finished, total=rollout.total, figures=figures)

    return on_progress


def _make_progress(*, transient: bool = False) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description:<12}"),
        BarColumn(bar_width=24),  # this column shrinks first on a narrow terminal
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=CONSOLE,
        transient=transient,
        disable=not CONSOLE.is_terminal,
    )


def _text(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _minutes(began: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _short(value: float) -> str:
    whole = isinstance(value, int) or abs(value) >= 100
    return f"{value:,.0f}" if whole else f"{value:.3f}"
