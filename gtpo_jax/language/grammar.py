"""The grammar of a dialogue: prompt, code, tool output, answer.

    <|user|>question<|end|><|assistant|>             prompt
    text <code>print(2+2)</code><|end|>              a turn that calls the tool
    <|tool|>4<|end|><|assistant|>                    the observation
    The answer is <answer>4</answer><|end|>          a turn that answers

Markers are control symbols of the tokenizer: text never encodes to one, and text that reads like
one is none. What the policy wrote is parsed from its tokens and never tokenized again.
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
    """A control symbol of the grammar, as opposed to a text that happens to read like one."""

    __slots__ = ()


USER, ASSISTANT, TOOL = Marker("<|user|>"), Marker("<|assistant|>"), Marker("<|tool|>")
END = Marker("<|end|>")
CODE, CODE_END = Marker("<code>"), Marker("</code>")
ANSWER, ANSWER_END = Marker("<answer>"), Marker("</answer>")
CONTROL_SYMBOLS = (USER, ASSISTANT, TOOL, END, CODE, CODE_END, ANSWER, ANSWER_END)

_ACTIONS = re.compile(f"({'|'.join(map(re.escape, (CODE, CODE_END, ANSWER, ANSWER_END)))})")

NO_ACTION = "neither a call nor an answer"
"""How the violation of a turn begins that leaves nothing to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedTurn:
    """What a turn says: either calls or an answer, or neither."""

    text: str
    codes: tuple[str, ...] = ()
    answer: str | None = None
    violation: str | None = None  # why the turn is not well formed
    thinking: bool = False  # the next turn begins in a thought that is open

    @property
    def acts(self) -> bool:
        """There is something to do: calls, an answer, or a violation to be told."""
        return self.violation is None or not self.violation.startswith(NO_ACTION)


def parse_turn(pieces: Sequence[str], *, most_calls: int = 1, unmarked: bool = False) -> ParsedTurn:
    """Reads one turn from its markers and the texts between them, the end marker included.

    A turn is well formed when it holds one to `most_calls` calls *or* exactly one answer, each
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
    """The rule a turn broke. Besides being well formed, the first turn has to call the tool."""
    if parsed.violation is None and not parsed.codes and turn_index == 0:
        return "the first turn did not call the tool"
    return parsed.violation


def _is(piece: str, marker: Marker) -> bool:
    return isinstance(piece, Marker) and piece == marker


def _enclosed(pieces: Sequence[str], opening: Marker, closing: Marker) -> Iterator[str]:
    """The texts between a marker and another; the markers alternate."""
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
    """What the environment replies to a turn that is not well formed, in place of tool output."""
    return f"Error: {violation}"


def cut_stopped(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text of a turn, and whether it ends with a stop string.

    White space behind the stop string is left out. Raises `ValueError` where anything else follows
    it: a policy would have ended its turn before.
    """
    said = stops.cut(text, stop_strings)
    if not said.endswith(tuple(stop_strings)):
        return text, False
    if rest := text[len(said) :].strip():
        stop = next(stop for stop in stop_strings if said.endswith(stop))
        raise ValueError(
            f"{stop!r} ends a turn, and here {rest[:40]!r} follows it; begin another turn behind it"
        )
    return said, True


class AnyDialogue(Protocol):
    """What rollouts and demonstrations know of how prompts, turns and observations are written."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def system_prompt(self) -> str:
        """What stands before every question; empty where nothing does."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn. They are sampled and trained."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn, wherever in its tokens they stand."""
        ...

    @property
    def most_calls(self) -> int:
        """Calls that one turn may hold."""
        ...

    def prompt(self, question: str) -> np.ndarray:
        """Ids of the prompt, up to where the policy begins to write."""
        ...

    def observation(
        self, output: str | Sequence[str], *, budget: int, ended: bool = True
    ) -> tuple[np.ndarray, int]:
        """Ids between a turn and the next one, at most `budget`, and the output tokens cut for it.

        `output` is what the environment says to the turn: one text, or one for each of its calls.
        `ended`: the last token of the turn is one of `stop_ids`. Raises `ValueError` when the
        budget has no room for as many outputs, each of them empty.
        """
        ...

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Reads the tokens of one turn. Never raises for what the policy wrote.

        `before` is the turn before it. `unmarked`: text that neither calls nor marks an answer is
        an answer, as programs are answered.
        """
        ...

    def turn(self, text: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that a demonstrator wrote as text, its end marker left out.

        Markers and tags of calls and answers that stand in their places are meant. The turn ends
        with its end marker, or with the stop string that the text ends with. `before` is the turn
        before it, here and below. Raises `ValueError` where text follows a stop string.
        """
        ...

    def call(self, thought: str, *codes: str, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that calls the tool. Raises `ValueError` for calls it cannot hold."""
        ...

    def unclosed_call(
        self, thought: str, code: str, *, before: ParsedTurn | None = None
    ) -> np.ndarray:
        """Ids of a turn whose call is not closed, as imperfect demonstrators write it."""
        ...

    def answer(self, thought: str, answer: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that answers. Raises `ValueError` for an answer it cannot hold."""
        ...


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """Renders the grammar with one tokenizer.

    Besides its end marker, the first of `stop_strings` ends a turn. It is the policy's text and
    trained on; the end marker that the policy did not write is put in by the environment, at the
    head of the observation.
    """

    tokenizer: Tokenizer
    stop_strings: tuple[str, ...] = ()
    most_calls: int = 1  # of one turn

    @property
    def system_prompt(self) -> str:
        """Empty: nothing stands before a question."""
        return ""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn."""
        return (self.tokenizer.control_id(END),)

    def prompt(self, question: str) -> np.ndarray:
        """Ids of the prompt, up to where the policy begins to write."""
        return self._ids(USER, question, END, ASSISTANT)

    def turn(self, text: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that was written as text, its end marker left out.

        The markers of calls and answers that it spells are meant, all of them: code that spells one
        is a matter for `call`. Turn markers are text.
        """
        del before
        *others, last = [
            piece if at % 2 == 0 else Marker(piece) for at, piece in enumerate(_ACTIONS.split(text))
        ]
        said, stopped = cut_stopped(last, self.stop_strings)
        return self._ids(*others, said, *([] if stopped else [END]))

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
        """Ids of a turn whose call is not closed, as imperfect demonstrators write it."""
        del before
        return self._ids(thought, CODE, code, END)

    def observation(
        self, output: str | Sequence[str], *, budget: int, ended: bool = True
    ) -> tuple[np.ndarray, int]:
        """Ids that follow a turn, and the number of output tokens cut.

        The ids are the tool's output in its markers, behind the end marker of a turn that has not
        `ended` with one itself. Several outputs are one text, each of them its own lines.
        The whole takes at most `budget` tokens; of a longer output its beginning and its end are
        left (`excerpts.excerpt`). Raises when not even the markers fit.
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
        """Reads the tokens of one turn.

        Behind a stop string comes nothing of the text, though the token that completes it may have
        more.
        """
        del before  # every turn is read by itself
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
