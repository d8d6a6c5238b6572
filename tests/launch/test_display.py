"""What a terminal is shown while rollouts go on, and that nobody else is shown more."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from gtpo_jax.rollout import RolloutProgress
from launch import display


def standing(finished=3, tokens=1000, rows=5, tools=2):
    return RolloutProgress(
        finished=finished, total=8, sampled_tokens=tokens, active_rows=rows, tools_in_flight=tools
    )


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that keeps all that is drawn on it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    monkeypatch.setattr(display, "ROLLOUT_SECONDS", 1e-9)
    return console


def drawn(console):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def screen(console):
    """What stands on the terminal in the end, line by line, the one of the cursor the last."""
    lines, row = [""], 0
    for code, text in re.findall(
        r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", console.file.getvalue()
    ):
        if code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code.endswith("A"):
            row -= int(code[2:-1])
        elif code == "\x1b[2K":
            lines[row] = ""
        else:
            lines[row] += text
    assert not any(lines[row + 1 :])
    return lines[: row + 1]


def last_frame(bar, width=160):
    """The lines that the bars have now."""
    console = Console(file=io.StringIO(), width=width)
    console.print(bar.progress.get_renderable())
    return console.file.getvalue().rstrip().split("\n")


def test_rollout_is_a_line_under_that_of_the_phase_and_goes_with_its_end(terminal):
    with display.Display("gtpo", 10) as bar:
        bar.update(2, {"success": 0.5})
        with display.rollout("rollout", bar) as on_progress:
            on_progress(standing())
            phase, line = last_frame(bar)
            assert "gtpo" in phase and "2/10" in phase and "success 0.500" in phase
            assert line.startswith("rollout") and "3/8" in line
            assert "rows 5" in line and "tools 2" in line
            bar.progress.refresh()
            on_progress(standing(finished=7, rows=1, tools=0))
            assert "7/8" in last_frame(bar)[1] and "rows 1  tools 0" in last_frame(bar)[1]
        assert len(last_frame(bar)) == 1
        with display.rollout("another", bar):
            assert len(last_frame(bar)) == 2 and "another" in last_frame(bar)[1]
    assert "rows 5  tools 2" in drawn(terminal)
    [phase, end] = screen(terminal)
    assert phase.startswith("gtpo") and end == ""


def test_tokens_a_second_are_those_since_the_rollout_began(terminal):
    began = time.monotonic()
    with display.Display("gtpo", 10) as bar, display.rollout("rollout", bar) as on_progress:
        time.sleep(0.1)
        entered = time.monotonic()
        on_progress(standing(tokens=1_000_000))
        speed = float(re.search(r"tokens/s ([\d,]+)", last_frame(bar)[1])[1].replace(",", ""))
        assert 1e6 / (time.monotonic() - began) <= speed <= 1e6 / (entered - began - 0.05)


def test_rollout_alone_leaves_nothing_behind(terminal):
    with display.rollout("greedy eval") as on_progress:
        on_progress(standing())
        deadline = time.monotonic() + 10
        while "rows 5  tools 2" not in drawn(terminal) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "rows 5  tools 2" in drawn(terminal)
    assert screen(terminal) == [""]


def test_narrow_terminal_takes_from_the_bar_and_not_from_the_figures(terminal):
    with display.Display("gtpo", 10) as bar, display.rollout("rollout", bar) as on_progress:
        bar.update(2, {"success": 0.5})
        on_progress(standing())
        for line, whole in zip(last_frame(bar, 80), ("2/10", "3/8"), strict=True):
            assert whole in line
        assert "rows 5  tools 2" in last_frame(bar, 80)[1]


def test_rollout_that_fails_takes_its_line_along(terminal):
    with display.Display("gtpo", 10) as bar:
        with pytest.raises(RuntimeError), display.rollout("rollout", bar):
            raise RuntimeError
        assert len(last_frame(bar)) == 1


def test_figures_are_written_no_more_often_than_they_can_be_read(terminal, monkeypatch):
    monkeypatch.setattr(display, "ROLLOUT_SECONDS", 60.0)
    with display.Display("gtpo", 10) as bar, display.rollout("rollout", bar) as on_progress:
        on_progress(standing(finished=3))
        on_progress(standing(finished=4))
        assert "3/8" in last_frame(bar)[1], "the first is shown at once, the next after a while"


def test_without_a_terminal_rollouts_are_silent(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    with display.Display("gtpo", 10) as bar:
        with display.rollout("rollout", bar) as on_progress:
            assert on_progress is None, "the rollout has nobody to tell"
        bar.update(10, {"success": 0.5})
    with display.rollout("greedy eval") as on_progress:
        assert on_progress is None
    assert console.file.getvalue() == "gtpo 10/10  success 0.500\n"
