"""The text of a tool result that the policy reads."""

from __future__ import annotations

import dataclasses

import pytest

from gtpo_jax.tools import render_tool_result
from gtpo_jax.types import ToolResult, ToolStatus

TRACEBACK = """Traceback (most recent call last):
  File "<tool>", line 2, in <module>
    print(gcd(4, 6))
          ^^^
NameError: name 'gcd' is not defined
"""


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ToolResult(status=ToolStatus.OK, stdout="1024\n"), "1024"),
        (ToolResult(status=ToolStatus.OK, stdout="  a\n\n  b\n\n"), "  a\n\n  b"),
        (ToolResult(status=ToolStatus.OK), "(no output)"),
        (ToolResult(status=ToolStatus.OK, stdout="\n \n"), "(no output)"),
        (
            ToolResult(status=ToolStatus.ERROR, stderr=TRACEBACK),
            "NameError: name 'gcd' is not defined",
        ),
        (
            ToolResult(status=ToolStatus.ERROR, stdout="first\n", stderr=TRACEBACK),
            "first\nNameError: name 'gcd' is not defined",
        ),
        (ToolResult(status=ToolStatus.ERROR), "The code failed (error)."),
        (
            ToolResult(status=ToolStatus.OK, stdout="1\n", state_lost=True),
            "1\nThe session was restarted: variables of earlier calls are gone.",
        ),
        (
            ToolResult(status=ToolStatus.TIMEOUT, state_lost=True),
            "Time limit exceeded.\nThe session was restarted: variables of earlier calls are gone.",
        ),
        (ToolResult(status=ToolStatus.CRASH, stderr="killed by SIGSEGV\n"), "killed by SIGSEGV"),
        (
            ToolResult(status=ToolStatus.MEMORY, stdout="a\n", stderr="MemoryError\n"),
            "a\nMemory limit exceeded.",
        ),
        (ToolResult(status=ToolStatus.TIMEOUT), "Time limit exceeded."),
        (ToolResult(status=ToolStatus.OUTPUT_LIMIT, stdout="x" * 9999), "Output limit exceeded."),
        (ToolResult(status=ToolStatus.INFRA_ERROR, stderr="pid 7"), "The tool is not available."),
    ],
)
def test_render_each_status_gives_its_text(result, text):
    assert render_tool_result(result) == text


def test_render_ok_with_warnings_shows_stdout_alone():
    """T-73: warnings on stderr do not hide what the code printed."""
    result = ToolResult(status=ToolStatus.OK, stdout="5\n", stderr="<tool>:1: SyntaxWarning\n")
    assert render_tool_result(result) == "5"


@pytest.mark.parametrize("status", list(ToolStatus))
def test_render_measurements_differ_same_text(status):
    """T-76: nothing that varies between runs of equal code is read."""
    result = ToolResult(status=status, stdout="a\n", stderr="KeyError: 1\n")
    other = dataclasses.replace(result, wall_seconds=1.5, cpu_seconds=2.5, peak_bytes=3)
    assert render_tool_result(result) == render_tool_result(other)


def test_render_out_of_time_same_text_whichever_clock_and_however_far():
    """T-76: which of two equal limits is met first, and what was printed by then, is chance."""
    wall = ToolResult(status=ToolStatus.TIMEOUT, stdout="1\n2\n")
    cpu = ToolResult(status=ToolStatus.CPU_LIMIT, stdout="1\n2\n3\n")
    assert render_tool_result(wall) == render_tool_result(cpu)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("<__main__.A object at 0x7f21c0a3b0d0>", "<__main__.A object at 0x...>"),
        ("[<function f at 0x7f21c0a3b0d0>, 1]", "[<function f at 0x...>, 1]"),
        ("<code object f at 0x7f21c0, file 1>", "<code object f at 0x..., file 1>"),
        ("0x7f21c0a3b0d0", "0x7f21c0a3b0d0"),
        ("look at 0xff", "look at 0xff"),
    ],
)
def test_render_addresses_in_reprs_are_replaced_and_numbers_kept(printed, shown):
    """T-76: an address differs between runs; a number that the code printed does not."""
    assert render_tool_result(ToolResult(status=ToolStatus.OK, stdout=printed)) == shown
