"""Progress on a terminal during rollouts, and plain lines elsewhere."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from gtpo_jax.rollout import RolloutProgress
from launch.run import display, heartbeat


def standing(finished=3, tokens=1000, rows=5, tools=2):
    return RolloutProgress(
        finished=finished, total=8, sampled_tokens=tokens, active_rows=rows, tools_in_flight=tools
    )


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that records everything drawn on it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    monkeypatch.setattr(display, "ROLLOUT_SECONDS", 1e-9)
    return console


def drawn(console):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def screen(console):
    """The final screen line by line; the last line is the cursor's."""
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
    """The lines of the bars as last drawn."""
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
        inside = time.monotonic()
        time.sleep(0.1)
        slept = time.monotonic() - inside
        on_progress(standing(tokens=1_000_000))
        speed = float(re.search(r"tokens/s ([\d,]+)", last_frame(bar)[1])[1].replace(",", ""))
        assert 1e6 / (time.monotonic() - began) - 1 <= speed <= 1e6 / slept + 1


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


@pytest.fixture
def log(monkeypatch):
    """A file instead of a terminal, with lines as often as possible."""
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    monkeypatch.setattr(heartbeat, "LINE_SECONDS", 0.02)
    return console.file


def wait_for(log, line):
    deadline = time.monotonic() + 30
    while not re.search(line, log.getvalue(), re.MULTILINE):
        assert time.monotonic() < deadline, log.getvalue()
        time.sleep(0.01)


def test_without_a_terminal_work_that_takes_long_is_a_line_now_and_then(log):
    with display.Display("gtpo", 10) as bar:
        wait_for(log, r"^gtpo 0/10  the first step, which is compiled  0 s$")
        with display.rollout("rollout", bar) as on_progress:
            wait_for(log, r"^rollout  0 s$")
            on_progress(standing())
            wait_for(log, r"^rollout 3/8  tokens/s [\d,.]+  rows 5  tools 2$")
        bar.update(2, {"success": 0.5})
        wait_for(log, r"^gtpo 2/10  success 0.500  0 s$")
        bar.update(10, {"success": 0.5})
    with display.working("programs") as tell:
        wait_for(log, r"^programs  0 s$")
        tell(1234)
        wait_for(log, r"^programs 1,234  0 s$")
    assert log.getvalue().count("gtpo 10/10  success 0.500\n") == 1
    time.sleep(0.1)
    said = log.getvalue()
    time.sleep(0.1)
    assert log.getvalue() == said, "nothing is under way any more"


def test_lines_are_no_closer_than_they_can_be_read(log, monkeypatch):
    monkeypatch.setattr(heartbeat, "LINE_SECONDS", 60.0)
    with display.Display("gtpo", 10) as bar, display.rollout("rollout", bar) as on_progress:
        for step in range(10):
            on_progress(standing())
            bar.update(step, {"success": 0.5})
    bar.update(10, {"success": 0.5})
    assert log.getvalue() == "gtpo 10/10  success 0.500\n"


def test_work_on_a_terminal_is_a_bar_that_goes_with_its_end(terminal):
    with display.working("programs", 8) as tell:
        tell(3)
    assert "programs" in drawn(terminal) and "3/8" in drawn(terminal)
    assert screen(terminal) == [""]
