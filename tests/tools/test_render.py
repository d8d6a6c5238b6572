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
        (
            ToolResult(status=ToolStatus.MEMORY, exception="MemoryError", stderr="MemoryError\n"),
            "Memory limit exceeded.",
        ),
        (ToolResult(status=ToolStatus.TIMEOUT), "Time limit exceeded."),
        (
            ToolResult(status=ToolStatus.TIMEOUT, stdout="1\n2\n", stderr="INFO:root:3\n"),
            "1\n2\nINFO:root:3\nTime limit exceeded.",
        ),
        (ToolResult(status=ToolStatus.CPU_LIMIT, stdout="1\n"), "1\nTime limit exceeded."),
        (
            ToolResult(status=ToolStatus.OUTPUT_LIMIT, stdout="1\n2\n", stderr="3\n"),
            "1\n2\nOutput limit exceeded.",
        ),
        (
            ToolResult(status=ToolStatus.OUTPUT_LIMIT, stderr="3\n"),
            "3\nOutput limit exceeded.",
        ),
        (
            ToolResult(status=ToolStatus.INFRA_ERROR, stdout="1", stderr="pid 7"),
            "The tool is not available.",
        ),
    ],
)
def test_render_each_status_gives_its_text(result, text):
    assert render_tool_result(result) == text


WARNING = "<tool>:2: UserWarning: careful\n  warnings.warn('careful')\n"
NOTES = "a note\nanother\n"


@pytest.mark.parametrize(
    ("stdout", "stderr", "text"),
    [
        ("5\n", WARNING, "5"),  # warnings do not hide what the code printed
        ("5\n", "<tool>:1: SyntaxWarning: invalid escape sequence\n", "5"),
        ("", WARNING, WARNING.rstrip()),
        ("", NOTES, NOTES.rstrip()),
        ("5\n", NOTES, "5\na note\nanother"),
        ("5\n", f"a note\n{WARNING}another\n", "5\na note\nanother"),
        ("", f"{WARNING}a note\n{WARNING}", "a note"),
        ("5\n", f"Error\n{WARNING}".rstrip(), "5\nError"),
        (WARNING, "", WARNING.rstrip()),  # on stdout the code has put it itself
    ],
)
def test_render_ok_shows_both_streams_and_warnings_where_there_is_nothing_else(
    stdout, stderr, text
):
    result = ToolResult(status=ToolStatus.OK, stdout=stdout, stderr=stderr)
    assert render_tool_result(result) == text


@pytest.mark.parametrize(
    ("exception", "stderr", "text"),
    [
        ("ValueError: a\nb", "noise\nValueError: a\nb\nbye\n", "ValueError: a\nb"),
        ("", "no solution\nexit status 1\n", "no solution\nexit status 1"),
        ("", f"{TRACEBACK}exit status 1\n", f"{TRACEBACK}exit status 1"),
        # A tool that does not know: from the frames of the last traceback on.
        (None, f"noise\n{TRACEBACK}", "NameError: name 'gcd' is not defined"),
        (None, f"{TRACEBACK}a note\n", "NameError: name 'gcd' is not defined\na note"),
        (
            None,
            '  File "a.py", line 1\n    x = = 1\n        ^\nSyntaxError: no\n',
            "SyntaxError: no",
        ),
        (None, "usage: a.py [-h] n\n", "usage: a.py [-h] n"),
        (None, '  File "a.py", line 1\n', '  File "a.py", line 1'),
    ],
)
def test_render_error_tells_the_exception_or_all_of_stderr(exception, stderr, text):
    result = ToolResult(status=ToolStatus.ERROR, exception=exception, stderr=stderr)
    assert render_tool_result(result) == text
    printed = dataclasses.replace(result, stdout="first\n")
    assert render_tool_result(printed) == f"first\n{text}"


@pytest.mark.parametrize("status", list(ToolStatus))
def test_render_measurements_differ_same_text(status):
    """Nothing that varies between runs of equal code is read."""
    result = ToolResult(status=status, stdout="a\n", stderr="KeyError: 1\n")
    other = dataclasses.replace(result, wall_seconds=1.5, cpu_seconds=2.5, peak_bytes=3)
    assert render_tool_result(result) == render_tool_result(other)


def test_render_out_of_time_same_text_whichever_clock():
    """Which of two equal limits is met first is chance."""
    wall = ToolResult(status=ToolStatus.TIMEOUT, stdout="1\n2\n")
    cpu = dataclasses.replace(wall, status=ToolStatus.CPU_LIMIT)
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
    """An address differs between runs; a number that the code printed does not."""
    assert render_tool_result(ToolResult(status=ToolStatus.OK, stdout=printed)) == shown


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (
            '  File "/usr/lib/python3.11/json/decoder.py", line 3',
            '  File "json/decoder.py", line 3',
        ),
        ('  File "/o/python3.13/site-packages/a/b.py", line 3', '  File "a/b.py", line 3'),
        ('  File "/tmp/mine.py", line 3', '  File "/tmp/mine.py", line 3'),
        (
            "/x/lib/python3.12/ast.py:50: DeprecationWarning: old",
            "ast.py:50: DeprecationWarning: old",
        ),
        ("/x/lib/python3.12/ast.py", "/x/lib/python3.12/ast.py"),
        ("Ran 12 tests in 0.013s", "Ran 12 tests in ...s"),
        ("it took: Ran 12 tests in 0.013s", "it took: Ran 12 tests in 0.013s"),
    ],
)
def test_render_folders_of_libraries_and_seconds_of_unittest_are_left_out(printed, shown):
    """Both differ between machines and runs."""
    result = ToolResult(status=ToolStatus.OK, stderr=f"{printed}\n")
    assert render_tool_result(result) == shown
