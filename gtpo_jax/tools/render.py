"""The text of a tool result that the policy reads."""

from __future__ import annotations

import itertools
import re

from gtpo_jax.types import ToolResult, ToolStatus

NO_OUTPUT = "(no output)"

# The text does not name the clock that ran out first: that depends on the load of the machine.
_OUT_OF_TIME = "Time limit exceeded."

_SENTENCES = {
    ToolStatus.TIMEOUT: _OUT_OF_TIME,
    ToolStatus.CPU_LIMIT: _OUT_OF_TIME,
    ToolStatus.OUTPUT_LIMIT: "Output limit exceeded.",
    ToolStatus.MEMORY: "Memory limit exceeded.",
    ToolStatus.INFRA_ERROR: "The tool is not available.",
}

_STATE_LOST = "The session was restarted: variables of earlier calls are gone."

# `<__main__.A object at 0x7f21c0a3b0d0>`: the address in a default repr differs between runs.
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{4,16}(?=[>,])")

# `File "/usr/lib/python3.11/json/decoder.py"` in a traceback, `/usr/lib/python3.11/ast.py:50: ` in
# a warning: where libraries are differs between hosts.
_LIBRARIES = re.compile(
    r'(?:(?<=File ")|^(?=[^\s:]+:\d+: \w+: ))/[^"\n:]*/(?:(?:site|dist)-packages|python3\.\d+)/',
    re.MULTILINE,
)

# `Ran 2 tests in 0.013s`, as unittest ends its report.
_TEST_SECONDS = re.compile(r"^(Ran \d+ tests? in )\d+\.\d+s$", re.MULTILINE)

# `<tool>:3: UserWarning: careful`, and the line of the program below it.
_WARNING = re.compile(r"^[^\s:]+:\d+: \w*Warning: .*\n(?:  .*\n)?", re.MULTILINE)


def render_tool_result(result: ToolResult) -> str:
    """The observation for the policy: the output of the code, then the failure, if any.

    | status | text |
    |---|---|
    | ok | stdout, stderr, or `(no output)` |
    | error by an exception | stdout, then the exception |
    | error by an exit status, crash | stdout, stderr, then that status or signal |
    | memory | stdout, then a sentence |
    | timeout, cpu_limit | stdout and stderr as far as it came, then a sentence |
    | output_limit | beginning and end of stdout, else of stderr, then a sentence |
    | infra_error | a sentence |

    Warnings on stderr are omitted unless there is nothing else. A line of its own says that a
    session lost its variables.

    The function is pure: it reads no clock and no field that varies between runs of equal code.
    Memory addresses in default reprs become `0x...`; library folders in tracebacks and warnings and
    the duration that unittest reports are removed. The output of a program that ran out of time
    still depends on how far it got.
    """
    parts = [*_written(result), _end(result), _STATE_LOST if result.state_lost else ""]
    text = "\n".join(part for part in parts if part) or NO_OUTPUT
    return _TEST_SECONDS.sub(r"\1...s", _LIBRARIES.sub("", _ADDRESS.sub("0x...", text)))


def exception_of(result: ToolResult) -> str:
    """The exception that ended the code, with its message and notes; empty if there was none.

    If the tool does not know it, the exception is read from the end of the last traceback.
    """
    if result.status is not ToolStatus.ERROR:
        return ""
    if result.exception is not None:
        return result.exception
    lines = result.stderr.rstrip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith(("Traceback", '  File "'))]
    behind = lines[frames[-1] + 1 :] if frames else []
    return "\n".join(itertools.dropwhile(lambda line: line.startswith("  "), behind))


def _written(result: ToolResult) -> list[str]:
    """The text of the streams that is shown."""
    stdout, stderr = result.stdout.rstrip(), result.stderr.rstrip()
    if result.status is ToolStatus.INFRA_ERROR:
        return []
    if result.status is ToolStatus.MEMORY or exception_of(result):
        return [stdout]
    if result.status is ToolStatus.OUTPUT_LIMIT:
        return [stdout or stderr]
    noted = _WARNING.sub("", f"{stderr}\n").rstrip()
    return [stdout, noted] if stdout or noted else [stderr]


def _end(result: ToolResult) -> str:
    """The reason for a failure, where the streams do not state it."""
    if result.status is ToolStatus.OK:
        return ""
    told = _SENTENCES.get(result.status) or exception_of(result)
    if told or result.stderr.strip():
        return told
    return f"The code failed ({result.status})."
