"""Answers that are texts or numbers."""

from __future__ import annotations

from gtpo_jax.tasks.judges import numbers
from gtpo_jax.types import Problem, Verdict

TOLERANCE = 1e-6


def exact(problem: Problem, answer: str | None) -> Verdict:
    """Right when the texts are equal, but for white space around them."""
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    return Verdict.RIGHT if answer.strip() == problem.answer.strip() else Verdict.WRONG


def numeric_or_exact(
    problem: Problem, answer: str | None, *, tolerance: float = TOLERANCE
) -> Verdict:
    """Right when the texts are equal, or are numbers that agree to a relative `tolerance`.

    Integers agree when they are equal, whatever their size (`judges.numbers.agree`). A text with
    anything besides one number (a unit, a percent sign, a sentence) is no number. Fractions such as
    3/4 are read where the expected answer is one; elsewhere they are a division not carried out.
    """
    verdict = exact(problem, answer)
    if answer is None or verdict is not Verdict.WRONG:
        return verdict
    given, expected = numbers.read_number(answer), numbers.read_number(problem.answer)
    if expected is None:
        expected = numbers.read_fraction(problem.answer)
        given = numbers.read_fraction(answer) if given is None else given
    if given is None or expected is None:
        return Verdict.WRONG
    return Verdict.RIGHT if numbers.agree(expected, given, tolerance) else Verdict.WRONG
