"""Calls as Markdown blocks of Python."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from gtpo_jax.language import answers, fences
from gtpo_jax.language.grammar import ParsedTurn
from gtpo_jax.language.protocols.base import (
    RULES,
    TAGS,
    UNCLOSED_CALL,
    Calls,
    cut_at_tags,
    read_turn,
)
from gtpo_jax.language.templates import Segment

FENCE_NOT_ALONE = "the fence that opens a call has to be a line of its own, such as ```python"

FENCED_PROMPT = (
    "Solve the problem step by step with the help of Python. To run a program, write it in a block"
    " that begins with ```python and ends with ```, then end your turn. Its output is sent to you"
    f" in a block that begins with ```output.{RULES}"
)

_MARK = re.compile("(?:```+|~~~+)[ \t]*([^\n]*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FencedPython:
    """Calls are Markdown blocks of Python, as instruction-tuned models write them.

    See `fences` for the bounds of a block. Any code can be written, with fences longer than those
    in it. Blocks in other languages, in an `<answer>`, or in a `<think>` at the start of a turn are
    not calls. The stop string keeps a policy from writing the output itself.
    """

    system_prompt: str = FENCED_PROMPT
    languages: tuple[str, ...] = fences.PYTHON  # as `fences.language` returns them
    tools: tuple[Mapping[str, Any], ...] = ()
    stop_strings: tuple[str, ...] = ("```output",)
    reply_role: str = "user"
    inline: bool = False

    @classmethod
    def after_block(cls) -> FencedPython:
        """A protocol whose turns end behind the first closing fence that stands alone on its line.

        A line of three backticks that opens a block without a label ends the turn as well.
        """
        return cls(stop_strings=(*cls.stop_strings, "\n```\n"))

    def call(self, code: str, *, closed: bool = True) -> str:
        longest = max(map(len, re.findall("`+", code)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{self.languages[0]}\n{code}" + f"\n{fence}" * closed

    def reply(self, output: str) -> str:
        return f"```output\n{output}\n```"

    def parse(
        self, text: str, *, most_calls: int = 1, in_thought: bool = False, unmarked: bool = False
    ) -> ParsedTurn:
        return read_turn(text, self._read(text, in_thought), most_calls, unmarked=unmarked)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        return cut_at_tags(text, self._read(text, in_thought).code_spans, TAGS)

    def _read(self, text: str, in_thought: bool) -> Calls:
        begin = answers.thought_end(text, in_thought=in_thought)
        if begin is None:
            return Calls(violation=answers.UNCLOSED_THOUGHT)
        blocks = fences.blocks(text, begin)
        code_spans = tuple((block.begin, block.code_end) for block in blocks)
        answered = answers.tagged_spans(fences.masked(text, blocks))
        others = [
            block
            for block in blocks
            if not any(first <= block.begin < last for first, last in answered)
        ]
        calls = [block for block in others if fences.is_python(block, self.languages)]
        outside = fences.without(text, [(block.begin, block.end) for block in calls], begin)
        violation = self._violation(fences.without(text, [(b.begin, b.end) for b in blocks], begin))
        for block in calls:
            if not block.closed:
                violation = UNCLOSED_CALL
            elif not block.labeled_well:
                violation = FENCE_NOT_ALONE
        codes = tuple(block.code for block in calls)
        hint = self._hint(others[-1].label) if others else ""
        return Calls(codes, outside, code_spans, violation, hint)

    def _violation(self, unfenced: str) -> str | None:
        """The violation of fences that begin no block."""
        labels = (fences.language(mark[1]) for mark in _MARK.finditer(unfenced))
        return FENCE_NOT_ALONE if any(label in self.languages for label in labels) else None

    def _hint(self, label: str) -> str:
        said = f"a block labeled {label[:20]!r}" if label else "a block without a label"
        return f"{said} is not run, those labeled {', '.join(self.languages)} are"
