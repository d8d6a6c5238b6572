"""Answers that are one of several given choices."""

from __future__ import annotations

import re
import string

from gtpo_jax.types import Problem, Verdict

# `B`, `(B)`, `b.`, `B)`, `B:`, and what follows it.
_LETTER = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])(?:[.):](?=\s|$)|$))\s*(.*)", re.DOTALL)
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{(.*)\}", re.DOTALL)


def expected_letter(problem: Problem) -> str | None:
    """The letter of the right choice; None if the problem's answer names none of its choices."""
    letter = problem.answer.strip().strip("()").upper()
    if len(letter) != 1 or letter not in string.ascii_uppercase:
        return None
    known = not problem.choices or string.ascii_uppercase.index(letter) < len(problem.choices)
    return letter if known else None


def choice(problem: Problem, answer: str | None) -> Verdict:
    """Right if the answer is the letter of the right choice, or that choice's text.

    For choice B these are `B`, `(B)`, `b.`, `B)`; `B) text` with the text of B; and the text of B
    alone, if no other choice has it. Case and spaces do not count. Anything else is wrong.
    """
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    letter = expected_letter(problem)
    if letter is None:
        return Verdict.UNVERIFIABLE
    return Verdict.RIGHT if _chosen(problem.choices, answer) == letter else Verdict.WRONG


def _chosen(choices: tuple[str, ...], answer: str) -> str | None:
    """The letter that an answer chooses; None if it does not choose exactly one."""
    answer = answer.strip().strip("$").strip()
    while wrapped := _LATEX.fullmatch(answer):
        answer = wrapped[1].strip()
    letters = dict(zip(string.ascii_uppercase, map(_plain, choices), strict=False))
    found = _LETTER.fullmatch(answer)
    if found:
        letter = (found[1] or found[2]).upper()
        rest = _plain(found[3])
        if not rest or letters.get(letter) == rest:
            return letter
    same = [letter for letter, text in letters.items() if text == _plain(answer)]
    return same[0] if len(same) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".")
