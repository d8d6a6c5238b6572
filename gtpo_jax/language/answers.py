"""Reads the answer from a turn of a chat model: `<answer>…</answer>`, or `\\boxed{…}`."""

from __future__ import annotations

import re

from gtpo_jax.language import fences
from gtpo_jax.language.fences import ANSWER, ANSWER_END

THINK, THINK_END = "<think>", "</think>"
UNCLOSED_ANSWER = "the answer is not closed"
UNCLOSED_THOUGHT = f"the thought is not closed by {THINK_END}"

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # skips any character after a backslash
_PART = re.compile(
    r"(?!\\(?:boxed|fbox))\\[A-Za-z]+|\\[^A-Za-z\s()\[\]]|[^\s$\\{}`<>]"
)  # one part of a box without braces
_DOTS = re.compile(r"[\s.…]*|\\[lc]?dots")  # a box in prose about answers: "\\boxed{...}"
_OPENED = re.compile(r"\s*\{")
_MEANT = re.compile(r"[+−.-]*\d|[+−-]?\\|\(.*\)\Z", re.DOTALL)
_END_OF_MATHS = re.compile(r"[ \t]*(?:\$|\\[)\]])")
_END_OF_CLAUSE = re.compile(r"[ \t]*(?:[$.,;:)\n]|\\[)\]]|\Z)")


def read_answer(text: str, *, in_thought: bool = False) -> tuple[str | None, str | None]:
    """Returns the answer of a turn and the violation of the answer rules; at least one is None.

    The last `<answer>…</answer>` counts; without one, the last box (see `boxes`). An empty answer
    counts only if there is no other; a box that holds only dots is empty. If an `<answer>` holds a
    box, the content of the box is the answer. Answers in fenced blocks are ignored, though an
    answer between tags may contain blocks. Answers in thoughts are ignored: before the last
    `</think>`, or after an unclosed `<think>`. `in_thought`: the text begins inside a thought.
    """
    parts = _after_thoughts(text, in_thought)
    if parts is None:
        return None, UNCLOSED_THOUGHT
    text, plain = parts
    tagged, wrong = _tagged(text, plain)
    if tagged or wrong:
        return tagged, wrong
    boxed, wrong = _boxed(plain, text)
    return (tagged if boxed is None and wrong is None else boxed), wrong


def thought_end(text: str, *, in_thought: bool = False) -> int | None:
    """Index after the thought that a turn begins with, 0 without one; None if it is not closed."""
    if not in_thought and not text.lstrip().startswith(THINK):
        return 0
    end = text.find(THINK_END)
    return None if end < 0 else end + len(THINK_END)


def unmarked_answer(text: str, *, in_thought: bool = False) -> str | None:
    """The whole turn without its thoughts, for answers that are programs; None if empty."""
    parts = _after_thoughts(text, in_thought)
    return (trimmed(parts[0]) or None) if parts else None


def tagged_spans(plain: str) -> list[tuple[int, int]]:
    """Spans of the answers between tags, closed or not, in a text whose blocks are masked."""
    spans: list[tuple[int, int]] = []
    end = 0
    while (begin := plain.find(ANSWER, end)) >= 0:
        close = plain.find(ANSWER_END, begin)
        end = len(plain) if close < 0 else close
        spans.append((begin, end))
    return spans


def boxes(text: str) -> list[str | None]:
    """The content of each `\\boxed{…}` and `\\fbox{…}` of a text, in order; None if not closed.

    Braces are balanced; an escaped brace does not count. Without braces, as in `\\boxed 5` and
    `\\boxed\\frac{1}{2}`, the box holds the number, letter or command that follows, with its
    arguments. If a word follows, the text is prose about boxes and not a box.
    """
    return _boxes(text, text)


def unboxed(text: str) -> str:
    """The content of a text that is exactly one box; any other text unchanged."""
    box = _BOX.match(text)
    inside, end = _content(text, text, box.end(), _ends_of_groups(text)) if box else (None, 0)
    return inside if inside and end == len(text) else text


def trimmed(answer: str) -> str:
    """Strips white space around an answer.

    The first of several lines keeps its indentation, which the rest of a program needs. A single
    space after a tag is not indentation.
    """
    whole = answer.strip()
    before = answer[: len(answer) - len(answer.lstrip())]
    indent = before.rpartition("\n")[2]
    if "\n" not in whole or before == " " or indent.strip(" \t"):
        return whole
    return indent + whole


def write_answer(answer: str) -> str:
    """Text that `read_answer` reads as the answer, up to white space around it.

    Raises `ValueError` if neither a box nor tags can hold the answer.
    """
    for text in (f"\\boxed{{{answer}}}", f"{ANSWER}{answer}{ANSWER_END}"):
        if read_answer(text) == (trimmed(answer), None):
            return text
    raise ValueError(
        f"the answer {answer!r} can be written neither in \\boxed{{}} nor between {ANSWER} and"
        f" {ANSWER_END}; give only the content of the box or tags"
    )


def _after_thoughts(text: str, in_thought: bool) -> tuple[str, str] | None:
    """The text after the last thought, also with its blocks masked; None in an open thought."""
    begin = thought_end(text, in_thought=in_thought)
    if begin is None:
        return None
    text = text[begin:]
    plain = fences.masked(text, fences.blocks(text))
    close = plain.rfind(THINK_END)
    if close >= 0:
        text, plain = text[close + len(THINK_END) :], plain[close + len(THINK_END) :]
    return None if THINK in plain else (text, plain)


def _tagged(text: str, plain: str) -> tuple[str | None, str | None]:
    """The last answer between tags, and its violation. `plain` is the text with blocks masked."""
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
    """The last answer in a box, and its violation: "" if all boxes are empty, None without any."""
    contents = _boxes(plain, text)
    for answer in reversed(contents):
        if answer is None:
            return None, UNCLOSED_ANSWER
        if not _DOTS.fullmatch(answer):
            return answer, None
    return ("" if contents else None), None


def _boxes(plain: str, text: str) -> list[str | None]:
    """The contents, taken from `text`, of the boxes in `plain`."""
    ends = _ends_of_groups(plain)
    contents = [_content(plain, text, box.end(), ends) for box in _BOX.finditer(plain)]
    return [inside for inside, end in contents if end]


def _content(plain: str, text: str, at: int, ends: dict[int, int]) -> tuple[str | None, int]:
    """The content of the box whose command ends at `at`, and the index after it; 0 if no box."""
    if opened := _OPENED.match(plain, at):
        end = ends.get(opened.end() - 1)
        if end is None:
            return None, len(plain)
        return trimmed(text[opened.end() : end]), end + 1
    argument, end = _argument(plain, at, ends)
    return (argument, end) if argument else (None, 0)


def _ends_of_groups(text: str) -> dict[int, int]:
    """Index of each opening brace → index of the brace that closes it."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            ends[opened.pop()] = brace.start()
    return ends


def _argument(text: str, at: int, ends: dict[int, int]) -> tuple[str, int]:
    """The content of a box without braces, and its end; empty if prose follows."""
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
