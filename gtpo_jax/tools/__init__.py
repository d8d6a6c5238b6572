"""Runs the policy's code in isolated processes with limits, and renders their results as text."""

from gtpo_jax.tools.busy import ExecutorBusy, submit_when_free
from gtpo_jax.tools.executor import IsolationError, PythonExecutor
from gtpo_jax.tools.limits import ToolLimits
from gtpo_jax.tools.render import render_tool_result

__all__ = [
    "ExecutorBusy",
    "IsolationError",
    "PythonExecutor",
    "ToolLimits",
    "render_tool_result",
    "submit_when_free",
]
