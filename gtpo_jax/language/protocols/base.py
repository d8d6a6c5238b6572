"""The interface of tool protocols, and what all of them read alike."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gtpo_jax.language import answers, fences
from gtpo_jax.language.fences import ANSWER, ANSWER_END
from gtpo_jax.language.grammar import NO_ACTION, ParsedTurn
from gtpo_jax.language.templates import Segment

UNCLOSED_CALL = "the call is not closed"
UNOPENED_CALL = "a call is closed that was not opened"
CALL_AND_ANSWER = "a call and an answer in one turn"

TAGS = (answers.THINK, answers.THINK_END, ANSWER, ANSWER_END)
"""Of every protocol, besides those around calls."""

RULES = (
    " Only what a program prints is shown to you. Use the tool before you answer, and give the"
    " final answer in \\boxed{}, in a turn of its own."
)
"""The end of every system prompt."""


class ToolProtocol(Protocol):
    """How calls and their outputs are written in the messages of a chat."""

    @property
    def system_prompt(self) -> str:
        """What the policy is told of the tool and of answers."""
        ...

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """Tools that the chat template describes in its own words."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn besides the template's end marker."""
        ...

    @property
    def reply_role(self) -> str:
        """`tool`: a message for each output. `user`: one message with all of them."""
        ...

    @property
    def inline(self) -> bool:
        """Outputs go on within the assistant's message where a stop string has ended the turn."""
        ...

    def call(self, code: str, *, closed: bool = True) -> str:
        """Text of a call; without `closed`, as one writes it who forgets its end."""
        ...

    def reply(self, output: str) -> str:
        """Content that shows an output."""
        ...

    def parse(
        self,
        text: str,
        *,
        most_calls: int = 1,
        in_thought: bool = False,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Reads a turn that has come to its end, without its end marker.

        `in_thought`: the turn begins inside a thought, which the prompt or, where outputs go on in
        the same message, an earlier turn has opened. `unmarked`: text that neither calls nor marks
        an answer is one, thoughts left out.
        """
        ...

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        """The text of a turn with its tags apart from the rest.

        Where the tokenizer has tokens for tags, they are meant, as a policy writes them; in the
        code of calls they are text.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Calls:
    """The calls of a turn; without them when one is not well formed."""

    codes: tuple[str, ...] = ()
    outside: str = ""  # the text around them, in which an answer may stand
    held: tuple[tuple[int, int], ...] = ()  # where in the text code stands, in which no tag is one
    violation: str | None = None
    hint: str = ""  # why something that looks like a call is none


def read_turn(
    text: str, calls: Calls, most_calls: int, *, in_thought: bool = False, unmarked: bool = False
) -> ParsedTurn:
    """What a turn says, its calls read."""
    answer, wrong = answers.read_answer(calls.outside, in_thought=in_thought)
    codes, violation = calls.codes, calls.violation
    thinking = wrong == answers.UNCLOSED_THOUGHT
    if unmarked and not codes and not answer and wrong is None:
        answer = answers.unmarked_answer(calls.outside, in_thought=in_thought)
    if violation is None and codes and (answer or (wrong and not thinking)):
        violation = CALL_AND_ANSWER
    if violation is None and len(codes) > most_calls:
        violation = f"{len(codes)} calls in one turn, where {most_calls} is the most"
    if violation is None and not codes:
        violation = wrong
        if answer is None and wrong is None:
            violation = f"{NO_ACTION}; {calls.hint}" if calls.hint else NO_ACTION
    if violation is not None:
        return ParsedTurn(text=text, violation=violation, thinking=thinking)
    answer = None if codes else answer  # an empty box beside a call speaks of answers
    return ParsedTurn(text=text, codes=codes, answer=answer, thinking=thinking)


def unrun_block(outside: str, opening: str, closing: str) -> str:
    """A hint for who writes a block of Python where calls stand between tags."""
    if not any(map(fences.is_python, fences.blocks(outside))):
        return ""
    return f"a block of Python is not run, a call stands between {opening} and {closing}"


def cut_at_tags(text: str, held: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Segment]:
    """The text cut at its tags, those that do not stand in what is held."""
    pieces: list[Segment] = []
    behind = 0
    for tag in re.finditer("|".join(map(re.escape, tags)), text):
        if not any(begin <= tag.start() < end for begin, end in held):
            pieces += [Segment(text[behind : tag.start()], False), Segment(tag[0], True)]
            behind = tag.end()
    return [*pieces, Segment(text[behind:], False)]
