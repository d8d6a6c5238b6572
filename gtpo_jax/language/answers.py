"""The answer in what a chat model wrote: `<answer>…</answer>`, or `\\boxed{…}`."""

from __future__ import annotations

import re

from gtpo_jax.language import fences
from gtpo_jax.language.fences import ANSWER, ANSWER_END

THINK, THINK_END = "<think>", "</think>"
UNCLOSED_ANSWER = "the answer is not closed"
UNCLOSED_THOUGHT = f"the thought is not closed by {THINK_END}"

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # what a backslash stands before is skipped
_PART = re.compile(
    r"(?!\\(?:boxed|fbox))\\[A-Za-z]+|\\[^A-Za-z\s()\[\]]|[^\s$\\{}`<>]"
)  # of what stands unbraced
_DOTS = re.compile(r"[\s.…]*|\\[lc]?dots")  # in a box that speaks of answers
_OPENED = re.compile(r"\s*\{")
_MEANT = re.compile(r"[+−.-]*\d|[+−-]?\\|\(.*\)\Z", re.DOTALL)
_END_OF_MATHS = re.compile(r"[ \t]*(?:\$|\\[)\]])")
_END_OF_CLAUSE = re.compile(r"[ \t]*(?:[$.,;:)\n]|\\[)\]]|\Z)")


def read_answer(text: str, *, in_thought: bool = False) -> tuple[str | None, str | None]:
    """The answer of a turn and what is wrong with it; at most one of them is there.

    The last `<answer>…</answer>` counts, without it the last box (`boxes`); an empty one counts
    where there is no other, and a box with dots is empty. An `<answer>` that holds a box is what
    the box holds. Nothing is read in a fenced block, but an answer between tags may hold some, and
    in a thought: before the last `</think>`, or behind a `<think>` that is not closed.
    `in_thought`: the text begins in one.
    """
    parts = _behind_thoughts(text, in_thought)
    if parts is None:
        return None, UNCLOSED_THOUGHT
    text, plain = parts
    tagged, wrong = _tagged(text, plain)
    if tagged or wrong:
        return tagged, wrong
    boxed, wrong = _boxed(plain, text)
    return (tagged if boxed is None and wrong is None else boxed), wrong


def thought_end(text: str, *, in_thought: bool = False) -> int | None:
    """Where the thought that a turn begins with has ended; None if it does not end."""
    if not in_thought and not text.lstrip().startswith(THINK):
        return 0
    end = text.find(THINK_END)
    return None if end < 0 else end + len(THINK_END)


def unmarked_answer(text: str, *, in_thought: bool = False) -> str | None:
    """All of a turn but its thoughts, as programs are answered; None where nothing is left."""
    parts = _behind_thoughts(text, in_thought)
    return (trimmed(parts[0]) or None) if parts else None


def tagged_spans(plain: str) -> list[tuple[int, int]]:
    """Where in a text, its blocks masked, answers stand between tags, be they closed or not."""
    spans: list[tuple[int, int]] = []
    end = 0
    while (begin := plain.find(ANSWER, end)) >= 0:
        close = plain.find(ANSWER_END, begin)
        end = len(plain) if close < 0 else close
        spans.append((begin, end))
    return spans


def boxes(text: str) -> list[str | None]:
    """The content of each `\\boxed{…}` and `\\fbox{…}` of a text, in order; None if not closed.

    Braces are balanced; a brace behind a backslash is no brace. Without braces, as in `\\boxed 5`
    and `\\boxed\\frac{1}{2}`, a box holds the number, the letter or the command that follows, with
    its arguments. A word that follows is prose about boxes.
    """
    return _boxes(text, text)


def unboxed(text: str) -> str:
    """The content of a text that is one box; any other text as it stands."""
    box = _BOX.match(text)
    inside, end = _held(text, text, box.end(), _ends_of_groups(text)) if box else (None, 0)
    return inside if inside and end == len(text) else text


def trimmed(answer: str) -> str:
    """An answer without the white space around it.

    The first of several lines keeps its indentation, as the rest of a program needs it. One space
    behind a tag is none.
    """
    whole = answer.strip()
    before = answer[: len(answer) - len(answer.lstrip())]
    indent = before.rpartition("\n")[2]
    if "\n" not in whole or before == " " or indent.strip(" \t"):
        return whole
    return indent + whole


def write_answer(answer: str) -> str:
    """Text that `read_answer` reads as the answer, white space around it aside.

    Raises `ValueError` for one that neither a box nor tags can hold.
    """
    for text in (f"\\boxed{{{answer}}}", f"{ANSWER}{answer}{ANSWER_END}"):
        if read_answer(text) == (trimmed(answer), None):
            return text
    raise ValueError(
        f"the answer {answer!r} can stand neither in \\boxed{{}} nor between {ANSWER} and"
        f" {ANSWER_END}; give what is in its box or tags alone"
    )


def _behind_thoughts(text: str, in_thought: bool) -> tuple[str, str] | None:
    """The text behind the last thought, and the same with its blocks masked; None within one."""
    begin = thought_end(text, in_thought=in_thought)
    if begin is None:
        return None
    text = text[begin:]
    plain = fences.masked(text, fences.blocks(text))
    behind = plain.rfind(THINK_END)
    if behind >= 0:
        text, plain = text[behind + len(THINK_END) :], plain[behind + len(THINK_END) :]
    return None if THINK in plain else (text, plain)


def _tagged(text: str, plain: str) -> tuple[str | None, str | None]:
    """The last answer between tags, `plain` being the text with its blocks masked."""
    end, answer = len(plain), None
    while (at := plain.rfind(ANSWER, 0, end)) >= 0:
        begin = at + len(ANSWER)
        close = plain.find(ANSWER_END, begin, None if end == len(plain) else end)
        if close < 0 and end == len(plain):
            return None, UNCLOSED_ANSWER
        if close >= 0:
            boxed, wrong = _boxed(plain[begin:close], text[begin:close])
            answer = trimmed(text[begin:close]) if boxed is None else boxed
            if answer or wrong:
                return (None if wrong else answer), wrong
        end = at
    return answer, None


def _boxed(plain: str, text: str) -> tuple[str | None, str | None]:
    """The last answer in a box; empty where all boxes are, None without a box."""
    held = _boxes(plain, text)
    for answer in reversed(held):
        if answer is None:
            return None, UNCLOSED_ANSWER
        if not _DOTS.fullmatch(answer):
            return answer, None
    return ("" if held else None), None


def _boxes(plain: str, text: str) -> list[str | None]:
    """The contents of the boxes that stand in `plain`, taken from the text."""
    ends = _ends_of_groups(plain)
    held = [_held(plain, text, box.end(), ends) for box in _BOX.finditer(plain)]
    return [inside for inside, end in held if end]


def _held(plain: str, text: str, at: int, ends: dict[int, int]) -> tuple[str | None, int]:
    """The content of a box whose command ends at a place, and the place behind it; 0 for no box."""
    if opened := _OPENED.match(plain, at):
        end = ends.get(opened.end() - 1)
        if end is None:
            return None, len(plain)
        return trimmed(text[opened.end() : end]), end + 1
    argument, end = _argument(plain, at, ends)
    return (argument, end) if argument else (None, 0)


def _ends_of_groups(text: str) -> dict[int, int]:
    """The place of the brace that closes each one that opens, if one does."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            ends[opened.pop()] = brace.start()
    return ends


def _argument(text: str, at: int, ends: dict[int, int]) -> tuple[str, int]:
    """The content of a box without braces, and its end; empty where prose goes on."""
    while text.startswith((" ", "\t"), at):
        at += 1
    begin, depth = at, 0
    while at < len(text):
        part = _PART.match(text, at)
        if at > begin and at in ends:
            at = ends[at] + 1
            continue
        if part is not None:
            depth += {"(": 1, ")": -1}.get(part[0], 0)
        if part is None or depth < 0:
            break
        at = part.end()
    argument = text[begin:at].rstrip(".,;:")
    end = begin + len(argument)
    if argument[:1].isalpha():
        followed = _END_OF_CLAUSE if len(argument) == 1 else _END_OF_MATHS
        meant = followed.match(text, end) is not None
    else:
        meant = _MEANT.match(argument) is not None
    return (argument if meant else ""), end
