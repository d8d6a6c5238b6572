"""The grammar of a dialogue: prompt, code, tool output, answer.

    <|user|>question<|end|><|assistant|>             prompt
    text <code>print(2+2)</code><|end|>              a turn that calls the tool
    <|tool|>4<|end|><|assistant|>                    the observation
    The answer is <answer>4</answer><|end|>          a turn that answers

Markers are control symbols of the tokenizer: no text encodes to a marker, and text that reads like
one is not a marker. Turns are parsed from the tokens of the policy and never tokenized again.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gtpo_jax.decoding import stops
from gtpo_jax.language import excerpts
from gtpo_jax.language.answers import trimmed
from gtpo_jax.types import Tokenizer


class Marker(str):
    """A control symbol of the grammar, as opposed to text that reads the same."""

    __slots__ = ()


USER, ASSISTANT, TOOL = Marker("<|user|>"), Marker("<|assistant|>"), Marker("<|tool|>")
END = Marker("<|end|>")
CODE, CODE_END = Marker("<code>"), Marker("</code>")
ANSWER, ANSWER_END = Marker("<answer>"), Marker("</answer>")
CONTROL_SYMBOLS = (USER, ASSISTANT, TOOL, END, CODE, CODE_END, ANSWER, ANSWER_END)

_ACTIONS = re.compile(f"({'|'.join(map(re.escape, (CODE, CODE_END, ANSWER, ANSWER_END)))})")

NO_ACTION = "neither a call nor an answer"
"""Start of the violation of a turn that neither calls, answers, nor breaks another rule."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedTurn:
    """The content of a turn: calls, or an answer, or a violation."""

    text: str
    codes: tuple[str, ...] = ()
    answer: str | None = None
    violation: str | None = None  # the reason why the turn is not well formed
    thinking: bool = False  # the next turn begins inside an open thought

    @property
    def acts(self) -> bool:
        """True if the turn calls, answers, or has a violation that the environment reports."""
        return self.violation is None or not self.violation.startswith(NO_ACTION)


def parse_turn(pieces: Sequence[str], *, most_calls: int = 1, unmarked: bool = False) -> ParsedTurn:
    """Parses one turn from its markers, including the end marker, and the texts between them.

    A turn is well formed if it holds one to `most_calls` calls *or* exactly one answer, each
    closed, and no turn marker but the final one. With `unmarked`, text without markers is an
    answer.
    """
    text = "".join(pieces)
    if not pieces or not _is(pieces[-1], END):
        return ParsedTurn(text=text, violation="the turn did not end")
    body = pieces[:-1]
    markers = [piece for piece in body if isinstance(piece, Marker)]
    if any(marker in (USER, ASSISTANT, TOOL, END) for marker in markers):
        return ParsedTurn(text=text, violation="a turn marker inside the turn")
    count = len(markers) // 2
    if 1 <= count <= most_calls and markers == [CODE, CODE_END] * count:
        return ParsedTurn(text=text, codes=tuple(_enclosed(body, CODE, CODE_END)))
    if markers == [ANSWER, ANSWER_END]:
        [answer] = _enclosed(body, ANSWER, ANSWER_END)
        return ParsedTurn(text=text, answer=trimmed(answer))
    if not markers and unmarked and (said := trimmed("".join(body))):
        return ParsedTurn(text=text, answer=said)
    if not markers:
        return ParsedTurn(text=text, violation=NO_ACTION)
    calls = any(marker in (CODE, CODE_END) for marker in markers)
    if calls and any(marker in (ANSWER, ANSWER_END) for marker in markers):
        return ParsedTurn(text=text, violation="a call and an answer in one turn")
    kind = "code" if calls else "answer"
    return ParsedTurn(text=text, violation=f"the {kind} is not enclosed once")


def turn_violation(parsed: ParsedTurn, turn_index: int) -> str | None:
    """The rule that a turn broke: it must be well formed, and the first turn must call the tool."""
    if parsed.violation is None and not parsed.codes and turn_index == 0:
        return "the first turn did not call the tool"
    return parsed.violation


def _is(piece: str, marker: Marker) -> bool:
    return isinstance(piece, Marker) and piece == marker


def _enclosed(pieces: Sequence[str], opening: Marker, closing: Marker) -> Iterator[str]:
    """The texts between opening and closing markers, which alternate."""
    inside: list[str] | None = None
    for piece in pieces:
        if _is(piece, opening):
            inside = []
        elif _is(piece, closing) and inside is not None:
            yield "".join(inside)
            inside = None
        elif inside is not None:
            inside.append(piece)


def violation_output(violation: str) -> str:
    """The reply of the environment to a turn that is not well formed."""
    return f"Error: {violation}"


def cut_stopped(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text of a turn up to its first stop string, and True if it has one.

    White space after the stop string is dropped. Raises `ValueError` if other text follows: a
    policy's turn would have ended at the stop string.
    """
    turn = stops.cut(text, stop_strings)
    if not turn.endswith(tuple(stop_strings)):
        return text, False
    if rest := text[len(turn) :].strip():
        stop = next(stop for stop in stop_strings if turn.endswith(stop))
        raise ValueError(
            f"{stop!r} ends a turn, and here {rest[:40]!r} follows it; begin another turn after it"
        )
    return turn, True


class AnyDialogue(Protocol):
    """Writes prompts, turns and observations as ids, and parses turns.

    Rollouts and demonstrations use every grammar through this interface.
    """

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def system_prompt(self) -> str:
        """Text before every question; empty if there is none."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn. The policy samples them, and they are trained."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn, at any position within a token."""
        ...

    @property
    def most_calls(self) -> int:
        """Maximum number of calls in a turn."""
        ...

    def prompt(self, question: str) -> np.ndarray:
        """Ids of the prompt, up to the first token of the policy."""
        ...

    def observation(
        self, output: str | Sequence[str], *, budget: int, ended: bool = True
    ) -> tuple[np.ndarray, int]:
        """Ids between a turn and the next, at most `budget`, and the number of output tokens cut.

        `output` is the reply of the environment: one text, or one for each call. `ended`: the last
        token of the turn is one of `stop_ids`. Raises `ValueError` if the budget is too small for
        that many empty outputs.
        """
        ...

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Parses the tokens of one turn. Never raises, whatever the policy wrote.

        `before` is the previous turn. `unmarked`: text that neither calls nor marks an answer is an
        answer, for problems whose answer is a program.
        """
        ...

    def turn(self, text: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a demonstrator's turn, given as text without its end marker.

        Markers and tags of calls and answers are encoded as such. The turn ends with its end
        marker, or with the stop string at the end of the text. `before` is the previous turn, here
        and below. Raises `ValueError` if text follows a stop string.
        """
        ...

    def call(self, thought: str, *codes: str, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that calls the tool. Raises `ValueError` if the calls cannot be written."""
        ...

    def unclosed_call(
        self, thought: str, code: str, *, before: ParsedTurn | None = None
    ) -> np.ndarray:
        """Ids of a turn whose call is not closed: a slip of a demonstrator."""
        ...

    def answer(self, thought: str, answer: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that answers. Raises `ValueError` if the answer cannot be written."""
        ...


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """The grammar of this module, with one tokenizer.

    A turn ends with its end marker or with the first stop string. The stop string is text of the
    policy and is trained; the environment then adds the missing end marker at the start of the
    observation.
    """

    tokenizer: Tokenizer
    stop_strings: tuple[str, ...] = ()
    most_calls: int = 1  # in a turn

    @property
    def system_prompt(self) -> str:
        """Empty: there is no text before a question."""
        return ""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn."""
        return (self.tokenizer.control_id(END),)

    def prompt(self, question: str) -> np.ndarray:
        """Ids of the prompt, up to where the policy begins to write."""
        return self._ids(USER, question, END, ASSISTANT)

    def turn(self, text: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn given as text without its end marker.

        Every marker of a call or an answer in the text is encoded as a marker; use `call` for code
        that contains one. Turn markers stay text.
        """
        del before
        *others, last = [
            piece if at % 2 == 0 else Marker(piece) for at, piece in enumerate(_ACTIONS.split(text))
        ]
        last, stopped = cut_stopped(last, self.stop_strings)
        return self._ids(*others, last, *([] if stopped else [END]))

    def call(self, thought: str, *codes: str, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that calls the tool."""
        del before
        if len(codes) > self.most_calls:
            raise ValueError(
                f"{len(codes)} calls in one turn, where {self.most_calls} is the most; raise"
                " dialogue.most_calls"
            )
        calls = [piece for code in codes for piece in (CODE, code, CODE_END)]
        return self._ids(thought, *calls, END)

    def answer(self, thought: str, answer: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that answers."""
        del before
        return self._ids(thought, ANSWER, answer, ANSWER_END, END)

    def unclosed_call(
        self, thought: str, code: str, *, before: ParsedTurn | None = None
    ) -> np.ndarray:
        """Ids of a turn whose call is not closed: a slip of a demonstrator."""
        del before
        return self._ids(thought, CODE, code, END)

    def observation(
        self, output: str | Sequence[str], *, budget: int, ended: bool = True
    ) -> tuple[np.ndarray, int]:
        """Ids that follow a turn, and the number of output tokens cut.

        The ids are the output between its markers; if the turn has not `ended` with its end marker,
        the marker comes first. Several outputs are joined by line breaks. Everything takes at most
        `budget` tokens; a long output is cut in the middle (`excerpts.excerpt`). Raises
        `ValueError` if not even the markers fit.
        """
        before = self._ids(TOOL) if ended else self._ids(END, TOOL)
        after = self._ids(END, ASSISTANT)
        room = budget - len(before) - len(after)
        if room < 0:
            raise ValueError(
                f"an observation takes at least {len(before) + len(after)} tokens,"
                f" its budget is {budget}"
            )
        whole = self._ids(output if isinstance(output, str) else "\n".join(output))
        ids, dropped = excerpts.excerpt(whole.tolist(), room, self.tokenizer)
        return np.concatenate([before, np.asarray(ids, np.int32), after]), dropped

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Parses the tokens of one turn.

        The text ends at the stop string, even if the token that completes it continues.
        """
        del before  # every turn is parsed by itself
        symbols = {self.tokenizer.control_id(marker): marker for marker in CONTROL_SYMBOLS}
        pieces: list[str] = []
        for symbol, run in itertools.groupby(map(int, tokens), key=symbols.get):
            if symbol is None:
                pieces.append(self.tokenizer.decode(list(run)))
            else:
                pieces += [symbol for _ in run]
        if pieces and not isinstance(pieces[-1], Marker) and self.stop_strings:
            text = stops.cut(pieces[-1], self.stop_strings)
            if text.endswith(self.stop_strings):
                pieces[-1:] = [text, END]
        return parse_turn(pieces, most_calls=self.most_calls, unmarked=unmarked)

    def _ids(self, *parts: str) -> np.ndarray:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, Marker):
                ids.append(self.tokenizer.control_id(part))
            else:
                ids += self.tokenizer.encode(part)
        return np.asarray(ids, np.int32)
