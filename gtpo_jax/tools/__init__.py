"""Running the policy's code: a pool of limited worker processes, and the text of their results."""

from gtpo_jax.tools.executor import PythonExecutor
from gtpo_jax.tools.limits import ToolLimits
from gtpo_jax.tools.render import render_tool_result

__all__ = ["PythonExecutor", "ToolLimits", "render_tool_result"]
