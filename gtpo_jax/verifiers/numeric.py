"""Answers that are texts or numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers.judges import notation, numbers
from gtpo_jax.verifiers.judges.units import split_unit

TOLERANCE = 1e-6


def exact(problem: Problem, answer: str | None) -> Verdict:
    """Right if the texts are equal, apart from white space around them."""
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    return Verdict.RIGHT if answer.strip() == problem.answer.strip() else Verdict.WRONG


def numeric_or_exact(
    problem: Problem, answer: str | None, *, tolerance: float = TOLERANCE
) -> Verdict:
    """Right if the texts are equal, or are numbers that agree to a relative `tolerance`.

    A number may be written as people write it: in a box, between dollar signs or stars, with
    thousands separators, a unit or a currency. A text with anything else, such as a percent sign, a
    sentence or an expression, is not a number. Integers agree only if they are equal, whatever
    their size (`judges.numbers.agree`). Fractions such as 3/4 are read if the expected answer is
    one; otherwise they are a division that was not carried out.
    """
    verdict = exact(problem, answer)
    if answer is None or verdict is not Verdict.WRONG:
        return verdict
    (expected, unit), (given, other) = _bare(problem.answer), _bare(answer)
    target, value = numbers.read_number(expected), numbers.read_number(given)
    place = Fraction(0)
    if target is None:
        target = _read_fraction(expected)
        value = _read_fraction(given) if value is None else value
    elif value is not None:
        place = max(numbers.last_place(expected), numbers.last_place(given))
    if target is None or value is None or (unit and other and unit != other):
        return Verdict.WRONG
    same = numbers.agree(target, value, tolerance, place=place)
    return Verdict.RIGHT if same else Verdict.WRONG


def _bare(text: str) -> tuple[str, str]:
    """A number without its surroundings, and its unit, if it has one."""
    if len(text) > numbers.LONGEST:
        return "", ""
    value, unit = split_unit(notation.clean(text))
    return re.sub(r"^([+-])\s+", r"\1", value.strip()), unit


def _read_fraction(text: str) -> Fraction | None:
    """The value of `3/4` or `\\frac{3}{4}`; None for every other text."""
    return numbers.read_fraction(re.sub(r"\\frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1/\2", text))
