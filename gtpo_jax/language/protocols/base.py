"""The interface of tool protocols, and the parsing that all of them share."""

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
"""Tags of every protocol, besides its tags around calls."""

RULES = (
    " Only what a program prints is shown to you. Use the tool before you answer, and give the"
    " final answer in \\boxed{}, in a turn of its own."
)
"""Last sentences of every system prompt."""


class ToolProtocol(Protocol):
    """Writes and parses calls and their outputs in the messages of a chat."""

    @property
    def system_prompt(self) -> str:
        """Instructions to the policy about the tool and answers."""
        ...

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """Tools that the chat template describes."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn, besides the template's end marker."""
        ...

    @property
    def reply_role(self) -> str:
        """`tool`: one message per output. `user`: one message with all outputs."""
        ...

    @property
    def inline(self) -> bool:
        """True if outputs continue the assistant's message after a stop string."""
        ...

    def call(self, code: str, *, closed: bool = True) -> str:
        """Text of a call; `closed=False` leaves its end out."""
        ...

    def reply(self, output: str) -> str:
        """Content of a message that shows an output."""
        ...

    def parse(
        self,
        text: str,
        *,
        most_calls: int = 1,
        in_thought: bool = False,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Parses a finished turn, given without its end marker.

        `in_thought`: the turn begins inside a thought that the prompt has opened, or an earlier
        turn of the same message. `unmarked`: text that neither calls nor marks an answer is an
        answer, without its thoughts.
        """
        ...

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        """Splits the text of a turn at its tags.

        If the tokenizer has tokens for tags, tags are encoded as these tokens, as a policy writes
        them. Tags in the code of calls stay text.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Calls:
    """The calls of a turn; none if one of them is not well formed."""

    codes: tuple[str, ...] = ()
    outside: str = ""  # the text around the calls, which may hold an answer
    code_spans: tuple[tuple[int, int], ...] = ()  # spans of the text that are code: no tags there
    violation: str | None = None
    hint: str = ""  # the reason why a text that looks like a call is not one


def read_turn(
    text: str, calls: Calls, most_calls: int, *, in_thought: bool = False, unmarked: bool = False
) -> ParsedTurn:
    """Combines the calls of a turn with its answer, and checks the rules for both."""
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
    answer = None if codes else answer  # an empty box beside a call is prose about answers
    return ParsedTurn(text=text, codes=codes, answer=answer, thinking=thinking)


def unrun_block(outside: str, opening: str, closing: str) -> str:
    """A hint if the turn has a Python block although the protocol calls between tags."""
    if not any(map(fences.is_python, fences.blocks(outside))):
        return ""
    return f"a block of Python is not run, a call stands between {opening} and {closing}"


def cut_at_tags(
    text: str, code_spans: Sequence[tuple[int, int]], tags: Sequence[str]
) -> list[Segment]:
    """Splits the text at its tags outside code."""
    pieces: list[Segment] = []
    behind = 0
    for tag in re.finditer("|".join(map(re.escape, tags)), text):
        if not any(begin <= tag.start() < end for begin, end in code_spans):
            pieces += [Segment(text[behind : tag.start()], False), Segment(tag[0], True)]
            behind = tag.end()
    return [*pieces, Segment(text[behind:], False)]
