"""Right, wrong, or no answer."""

import pytest

from gtpo_jax.tasks.verifiers import numeric_or_exact
from gtpo_jax.types import Problem, Verdict


def verdict(expected, given):
    return numeric_or_exact(Problem(id="p", question="q", answer=expected), given)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("4", "4"),
        ("4", " 4\n"),
        ("4", "4.0"),
        ("4", "+4"),
        ("4", "04"),
        ("-4", "-4."),
        ("0.5", ".5"),
        ("1234567", "1,234,567"),
        ("1,234.5", "1234.50"),
        ("1500", "1.5e3"),
        ("0.333333333", "0.3333333333"),
        ("0", "-0"),
        ("blue", " blue "),
        ("3 pens", "3 pens"),
        ("9" * 70, "9" * 70),
    ],
)
def test_equal_text_or_number_is_right(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("4", "5"),
        ("4", "4 pens"),
        ("4", "$4"),
        ("4", "4%"),
        ("4", "4 4"),
        ("4", "4 or 5"),
        ("4", "the answer is 4"),
        ("4", "2+2"),
        ("4", "--4"),
        ("0.333", "0.334"),
        ("0.3333", "1/3"),
        ("12", "1,2"),  # a pair of numbers
        ("1234", "12,34"),
        ("1000", ",1000"),
        ("4", "nan"),
        ("4", "inf"),
        ("4", "."),
        ("4", "e"),
        ("4", "0x4"),
        ("4", "4_0"),
        ("40", "4_0"),
        ("1e999", "2e999"),
        ("1", "1" + "0" * 80),
        ("blue", "Blue"),
        ("blue", "4"),
        ("4", "Time limit exceeded."),
    ],
)
def test_anything_else_is_wrong(expected, given):
    # T-81
    assert verdict(expected, given) is Verdict.WRONG


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_nothing_is_no_answer(given):
    assert verdict("4", given) is Verdict.NO_ANSWER


def test_hostile_answer_is_judged_at_once():
    assert verdict("4", "1," * 50_000) is Verdict.WRONG
    assert verdict("4", "1e" + "9" * 50) is Verdict.WRONG
