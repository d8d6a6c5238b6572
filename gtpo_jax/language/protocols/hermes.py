"""Calls as JSON between two tags."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from gtpo_jax.language import answers
from gtpo_jax.language.grammar import ParsedTurn
from gtpo_jax.language.protocols.base import (
    RULES,
    TAGS,
    UNCLOSED_CALL,
    UNOPENED_CALL,
    Calls,
    cut_at_tags,
    read_turn,
    unrun_block,
)
from gtpo_jax.language.templates import Segment

NOT_JSON = 'the call is not JSON like {"name": "python", "arguments": {"code": "print(1)"}}'
UNKNOWN_TOOL = "the call names no tool that exists"
NO_CODE = 'the arguments of the call hold no "code" that is a string'
NOT_UNICODE = "the code of the call holds half of a surrogate pair"

PYTHON_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs a Python program and returns what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program."}},
            "required": ["code"],
        },
    },
}
"""Description of the tool for chat templates."""

HERMES_PROMPT = f"Solve the problem step by step with the help of the tool python.{RULES}"
HERMES_DESCRIBED_PROMPT = (
    "Solve the problem step by step with the help of the tool python. To run a program, write a"
    " JSON object with the name of the tool and its arguments between <tool_call> and </tool_call>,"
    " then end your turn:\n"
    '<tool_call>\n{"name": "python", "arguments": {"code": "print(1 + 1)"}}\n</tool_call>\n'
    f"Its output is sent to you.{RULES}"
)
"""System prompt for templates that describe tools in another format, or not at all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HermesCalls:
    """Calls are JSON between two tags, as Hermes and Qwen models are tuned to write them.

    A call ends with its JSON: a closing tag inside a string is text. Any code can be written. The
    parser is lenient: strings may contain raw line breaks and tabs, the JSON may be fenced,
    `parameters` may replace `arguments`, and the arguments may be JSON text instead of an object.
    The chat template describes `tools`; if it does not, or in another format, use
    `HermesCalls(tools=(), system_prompt=HERMES_DESCRIBED_PROMPT)`. A thought in `<think>` at the
    start of a turn neither calls nor answers.
    """

    system_prompt: str = HERMES_PROMPT
    tools: tuple[Mapping[str, Any], ...] = (PYTHON_TOOL,)
    name: str = "python"
    opening: str = "<tool_call>"
    closing: str = "</tool_call>"
    stop_strings: tuple[str, ...] = ()
    reply_role: str = "tool"
    inline: bool = False

    def call(self, code: str, *, closed: bool = True) -> str:
        call = {"name": self.name, "arguments": {"code": code}}
        said = f"{self.opening}\n{json.dumps(call, ensure_ascii=False)}"
        return said + f"\n{self.closing}" * closed

    def reply(self, output: str) -> str:
        return output

    def parse(
        self, text: str, *, most_calls: int = 1, in_thought: bool = False, unmarked: bool = False
    ) -> ParsedTurn:
        return read_turn(text, self._read(text, in_thought), most_calls, unmarked=unmarked)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        code_spans = self._read(text, in_thought).code_spans
        return cut_at_tags(text, code_spans, (self.opening, self.closing, *TAGS))

    def _read(self, text: str, in_thought: bool) -> Calls:
        behind = answers.thought_end(text, in_thought=in_thought)
        if behind is None:
            return Calls(violation=answers.UNCLOSED_THOUGHT)
        codes: list[str] = []
        outside: list[str] = []
        code_spans: list[tuple[int, int]] = []
        while (opening := text.find(self.opening, behind)) >= 0:
            begin = end = opening + len(self.opening)
            code: str | _Wrong = _Wrong(NOT_JSON)
            with contextlib.suppress(ValueError, RecursionError):
                call, end = _JSON.raw_decode(text, _behind(_OPENING_FENCE, text, begin))
                code = self._code(call)
            code_spans.append((begin, end))
            closing = _behind(_CLOSING_FENCE, text, end)
            if end == begin or not text.startswith(self.closing, closing):
                unclosed = text.find(self.closing, end) < 0
                violation = UNCLOSED_CALL if unclosed else NOT_JSON
                return Calls(code_spans=tuple(code_spans), violation=violation)
            if isinstance(code, _Wrong):
                return Calls(code_spans=tuple(code_spans), violation=code.violation)
            outside.append(text[behind:opening])
            codes.append(code)
            behind = closing + len(self.closing)
        unenclosed = "\n".join([*outside, text[behind:]])
        violation = UNOPENED_CALL if self.closing in unenclosed else None
        hint = unrun_block(unenclosed, self.opening, self.closing)
        return Calls(tuple(codes), unenclosed, tuple(code_spans), violation, hint)

    def _code(self, call: Any) -> str | _Wrong:
        if not isinstance(call, dict):
            return _Wrong(NOT_JSON)
        if call.get("name") != self.name:
            return _Wrong(UNKNOWN_TOOL)
        arguments = call.get("arguments")
        if arguments is None:
            arguments = call.get("parameters")
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = _JSON.decode(arguments)
        code = arguments.get("code") if isinstance(arguments, dict) else None
        if not isinstance(code, str):
            return _Wrong(NO_CODE)
        try:
            code.encode()
        except UnicodeEncodeError:
            return _Wrong(NOT_UNICODE)
        return code


@dataclasses.dataclass(frozen=True)
class _Wrong:
    """The reason why a call is not well formed."""

    violation: str


_JSON = json.JSONDecoder(strict=False)


_OPENING_FENCE = re.compile(r"\s*(?:```+[ \t]*(?:json)?[ \t]*\n\s*)?")
_CLOSING_FENCE = re.compile(r"\s*(?:(?<=\n)```+\s*)?")


def _behind(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The index after the match at `at`; `at` itself without a match."""
    match = pattern.match(text, at)
    return match.end() if match else at
