"""The text of a tool result that the policy reads."""

from __future__ import annotations

import re

from gtpo_jax.types import ToolResult, ToolStatus

NO_OUTPUT = "(no output)"

# How far such a call got depends on the load of the machine, so nothing that it printed is shown,
# and which of the two clocks ran out first is not told: equal code must give an equal observation.
_OUT_OF_TIME = "Time limit exceeded."

_SENTENCES = {
    ToolStatus.TIMEOUT: _OUT_OF_TIME,
    ToolStatus.CPU_LIMIT: _OUT_OF_TIME,
    ToolStatus.OUTPUT_LIMIT: "Output limit exceeded.",
    ToolStatus.INFRA_ERROR: "The tool is not available.",
}

_STATE_LOST = "The session was restarted: variables of earlier calls are gone."

# `<__main__.A object at 0x7f21c0a3b0d0>`: the address in a default repr differs between runs.
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{4,16}(?=[>,])")


def render_tool_result(result: ToolResult) -> str:
    """Observation for the policy: what the code printed, then in one line what went wrong, if so.

    | status | text |
    |---|---|
    | ok | stdout, or `(no output)`; stderr is not shown |
    | error, crash | stdout, then the last line of stderr, which holds the reason |
    | memory | stdout, then a fixed sentence |
    | timeout, cpu_limit, output_limit, infra_error | a fixed sentence |

    A session that lost its variables is told so in a line of its own.

    Pure: it reads no clock and no field that varies between runs of equal code. Memory addresses in
    default reprs are replaced by `0x...`.
    """
    text = _SENTENCES.get(result.status)
    if text is None:
        text = _ADDRESS.sub("0x...", _output(result))
    return f"{text}\n{_STATE_LOST}" if result.state_lost else text


def _output(result: ToolResult) -> str:
    """What the code printed and, if it failed, the reason."""
    stdout = result.stdout.rstrip()
    if result.status is ToolStatus.OK:
        return stdout or NO_OUTPUT
    return "\n".join(part for part in (stdout, _reason(result)) if part)


def _reason(result: ToolResult) -> str:
    """The line that says what went wrong."""
    if result.status is ToolStatus.MEMORY:
        return "Memory limit exceeded."
    lines = result.stderr.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last or f"The code failed ({result.status})."
