"""The answer in what a chat model wrote: `<answer>…</answer>`, or `\\boxed{…}`."""

from __future__ import annotations

import re

ANSWER, ANSWER_END = "<answer>", "</answer>"
UNCLOSED_ANSWER = "the answer is not closed"

_BOXED = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # what a backslash stands before is skipped


def read_answer(text: str) -> tuple[str | None, str | None]:
    """The answer of a turn and what is wrong with it; at most one of them is there.

    The last `<answer>…</answer>` counts, without it the last `\\boxed{…}`, its braces balanced; a
    brace behind a backslash is no brace. An `<answer>` that holds a box is what the box holds.
    """
    _, opened, inside = text.rpartition(ANSWER)
    if opened:
        answer, closed, _ = inside.partition(ANSWER_END)
        if not closed:
            return None, UNCLOSED_ANSWER
        boxed, wrong = read_answer(answer)
        return (answer.strip() if boxed is None and wrong is None else boxed), wrong
    begins = [found.end() for found in _BOXED.finditer(text)]
    if not begins:
        return None, None
    inside, depth = text[begins[-1] :], 1
    for found in _BRACE.finditer(inside):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return inside[: found.start()].strip(), None
    return None, UNCLOSED_ANSWER


def write_answer(answer: str) -> str:
    """Text that `read_answer` reads as the answer, white space around it aside.

    Raises `ValueError` for one that neither a box nor tags can hold.
    """
    for text in (f"\\boxed{{{answer}}}", f"{ANSWER}{answer}{ANSWER_END}"):
        if read_answer(text) == (answer.strip(), None):
            return text
    raise ValueError(
        f"the answer {answer!r} can stand neither in \\boxed{{}} nor between {ANSWER} and"
        f" {ANSWER_END}; give what is in its box or tags alone"
    )
