"""A tool for demonstrations: runs their one-line programs here, as the real one would."""

from __future__ import annotations

import contextlib
import io

from gtpo_jax.types import ToolResult, ToolStatus


def run_here(code: str) -> ToolResult:
    """Runs code in this process: only for code that this repository generated."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(code, {})
    except Exception as error:
        return ToolResult(
            status=ToolStatus.ERROR, stdout=output.getvalue(), stderr=type(error).__name__
        )
    return ToolResult(status=ToolStatus.OK, stdout=output.getvalue())
