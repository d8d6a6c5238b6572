"""Calls between two tags, within the message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gtpo_jax.language import fences
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

TAGS_PROMPT = (
    "Solve the problem step by step with the help of Python. To run a program, write it between"
    " <code> and </code>. Its output follows between <interpreter> and </interpreter>; then go"
    f" on.{RULES}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeTags:
    """Calls are between two tags, and the outputs continue the same message.

    The closing tag is a stop string, so a turn has one call, and its code cannot contain the
    closing tag. A fence around the whole code is removed, closed or not. Calls in `<think>` count,
    answers there do not.
    """

    system_prompt: str = TAGS_PROMPT
    opening: str = "<code>"
    closing: str = "</code>"
    tools: tuple[Mapping[str, Any], ...] = ()
    reply_role: str = "user"
    inline: bool = True

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.closing,)

    def call(self, code: str, *, closed: bool = True) -> str:
        return f"{self.opening}\n{code}" + f"\n{self.closing}" * closed

    def reply(self, output: str) -> str:
        return f"<interpreter>\n{output}\n</interpreter>"

    def parse(
        self, text: str, *, most_calls: int = 1, in_thought: bool = False, unmarked: bool = False
    ) -> ParsedTurn:
        calls = self._read(text)
        return read_turn(text, calls, most_calls, in_thought=in_thought, unmarked=unmarked)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        del in_thought  # calls in thoughts count as well
        return cut_at_tags(text, self._read(text).code_spans, (self.opening, self.closing, *TAGS))

    def _read(self, text: str) -> Calls:
        codes: list[str] = []
        outside: list[str] = []
        code_spans: list[tuple[int, int]] = []
        behind = 0
        while (opening := text.find(self.opening, behind)) >= 0:
            begin = opening + len(self.opening)
            end = text.find(self.closing, begin)
            if end < 0:
                spans = (*code_spans, (begin, len(text)))
                return Calls(code_spans=spans, violation=UNCLOSED_CALL)
            outside.append(text[behind:opening])
            codes.append(_bare(text[begin:end]))
            code_spans.append((begin, end))
            behind = end + len(self.closing)
        unenclosed = "\n".join([*outside, text[behind:]])
        violation = UNOPENED_CALL if self.closing in unenclosed else None
        hint = unrun_block(unenclosed, self.opening, self.closing)
        return Calls(tuple(codes), unenclosed, tuple(code_spans), violation, hint)


def _bare(code: str) -> str:
    """The code without a fence around all of it."""
    for block in fences.blocks(code)[:1]:
        around = code[: block.begin] + code[block.end :]
        if not around.strip() and (fences.is_python(block) or not block.label):
            return block.code
    return code.removeprefix("\n").removesuffix("\n")
