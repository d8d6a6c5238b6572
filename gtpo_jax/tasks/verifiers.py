"""Verifiers: is the answer right?"""

from __future__ import annotations

import math
import re

from gtpo_jax.types import Problem, Verdict

# Commas are read as separators of thousands only: `1,2` is a pair, not twelve.
_NUMBER = re.compile(r"[+-]?((\d{1,3}(,\d{3})+|\d+)(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


def numeric_or_exact(problem: Problem, answer: str | None) -> Verdict:
    """Right when the texts are equal, or are numbers that agree to a relative 1e-6.

    A text with anything besides one number (a unit, a sentence) is no number.
    """
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    if answer.strip() == problem.answer.strip():
        return Verdict.RIGHT
    given, expected = _number(answer), _number(problem.answer)
    if given is None or expected is None:
        return Verdict.WRONG
    close = math.isclose(given, expected, rel_tol=1e-6, abs_tol=1e-9)
    return Verdict.RIGHT if close else Verdict.WRONG


def _number(text: str) -> float | None:
    text = text.strip()
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", ""))
    return value if math.isfinite(value) else None
