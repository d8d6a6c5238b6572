"""Tool protocols: the text with which a chat model calls the tool, and that shows it outputs.

| protocol | a call | its output |
|---|---|---|
| `FencedPython` | a Markdown block of Python | a user message with a block of output |
| `CodeTags` | `<code>…</code>` | `<interpreter>…</interpreter>`, within the assistant's message |
| `HermesCalls` | `<tool_call>{"name": …, "arguments": {"code": …}}</tool_call>` | a tool message |

`answers.read_answer` reads the answer outside calls. A turn holds calls or an answer. If one of its
calls is not well formed, none counts, and the violation says what is wrong. Parsing never raises,
whatever the text.

Protocols are plain text: a tool that prints `</interpreter>` or three backticks can make its output
look finished. It cannot write control symbols of the chat template.
"""

from gtpo_jax.language.answers import THINK, THINK_END, UNCLOSED_ANSWER, UNCLOSED_THOUGHT
from gtpo_jax.language.grammar import NO_ACTION
from gtpo_jax.language.protocols.base import (
    CALL_AND_ANSWER,
    TAGS,
    UNCLOSED_CALL,
    UNOPENED_CALL,
    ToolProtocol,
)
from gtpo_jax.language.protocols.fenced import FENCE_NOT_ALONE, FENCED_PROMPT, FencedPython
from gtpo_jax.language.protocols.hermes import (
    HERMES_DESCRIBED_PROMPT,
    HERMES_PROMPT,
    NO_CODE,
    NOT_JSON,
    NOT_UNICODE,
    PYTHON_TOOL,
    UNKNOWN_TOOL,
    HermesCalls,
)
from gtpo_jax.language.protocols.tags import TAGS_PROMPT, CodeTags

__all__ = [
    "CALL_AND_ANSWER",
    "FENCED_PROMPT",
    "FENCE_NOT_ALONE",
    "HERMES_DESCRIBED_PROMPT",
    "HERMES_PROMPT",
    "NOT_JSON",
    "NOT_UNICODE",
    "NO_ACTION",
    "NO_CODE",
    "PYTHON_TOOL",
    "TAGS",
    "TAGS_PROMPT",
    "THINK",
    "THINK_END",
    "UNCLOSED_ANSWER",
    "UNCLOSED_CALL",
    "UNCLOSED_THOUGHT",
    "UNKNOWN_TOOL",
    "UNOPENED_CALL",
    "CodeTags",
    "FencedPython",
    "HermesCalls",
    "ToolProtocol",
]
