"""Texts, numbers and choices as answers."""

import pytest

from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import exact, numeric_or_exact
from gtpo_jax.verifiers.choice import choice
from gtpo_jax.verifiers.judges import leaves
from tests.verifiers.verdicts import verdict


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
        ("9" * 70, "9" * 70 + ".0"),
        ("1" + "0" * 30, "1e30"),
        ("3/4", "0.75"),
        ("3/4", "6/8"),
        ("-3/4", "-.75"),
        ("1000000000000", "1000000000000.0000001"),
        ("0", "1e-17"),
    ],
)
def test_equal_text_or_number_is_right(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("4", "5"),
        ("4", "4 pens"),
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
        ("0.75", "3/4"),  # a division that is not carried out, where no fraction is expected
        ("12", "84/7"),
        ("3/4", "0.7"),
        ("3/4", "3/0"),
        ("1000001", "1000000"),  # however small the relative error
        ("9" * 70, "9" * 69 + "8"),
        ("1234567", "1234567.4"),
        ("16386.16", "16386.17"),  # another last digit, within the tolerance
        ("16386.160", "16386.17"),
        ("100000.5", "100000.6"),
        ("0", "0.000001"),
        ("٤", "4"),  # digits of other scripts are no numbers here
    ],
)
def test_anything_else_is_wrong(expected, given):
    assert verdict(expected, given) is Verdict.WRONG


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("18", "\\boxed{\\$18}"),
        ("18", "\\$18"),
        ("18", "$\\$18$"),
        ("18", "$18"),
        ("18", "$18$"),
        ("18", "$18.00$."),
        ("18", "18\\text{ dollars}"),
        ("18", "18 dollars."),
        ("18", "18\\$"),
        ("18", "€18"),
        ("18", "\\text{18}"),
        ("18", "\\mathbf{18}"),
        ("18", "**18**"),
        ("18", "**$18**"),
        ("18", "`18`"),
        ("18", "{18}"),
        ("18", "18."),
        ("18", "18 cm"),
        ("18", "18\\text{ cm}^2"),
        ("18", "18 km/h"),
        ("18", "１８"),
        ("-5", "−5"),
        ("-5", "- 5"),
        ("-5", "-\\$5"),
        ("1080", "1{,}080"),
        ("1080", "1\\,080"),
        ("1080", "1 080"),
        ("1080", "\\$1,080.00"),
        ("$1,080", "1080 dollars"),
        ("3/4", "\\frac{3}{4}"),
        ("3/4", "¾"),
    ],
)
def test_number_as_people_write_it_is_right(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("75", "75\\%"),
        ("75", "$75\\%$"),
        ("75", "75 percent"),
        ("0.75", "75%"),
        ("18", "18 pens"),
        ("18", "18\\text{ million}"),
        ("18", "x = 18"),
        ("18", "18, 19"),
        ("18", "\\{18\\}"),
        ("18", "(18)"),
        ("18", "9 \\cdot 2"),
        ("18", "$9$ $2$"),
        ("18", "\\boxed{17}\\boxed{18}"),
        ("18", "18!"),
        ("$18", "18 euros"),
        ("18 cm", "18 m/s"),
        ("5", "--5"),
        ("1080", "1.080,00"),
    ],
)
def test_more_than_a_number_is_wrong(expected, given):
    assert verdict(expected, given) is Verdict.WRONG


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_nothing_is_no_answer(given):
    assert verdict("4", given) is Verdict.NO_ANSWER


def test_the_tolerance_is_relative_and_may_be_zero():
    half = Problem(id="p", question="q", answer="0.5")
    assert numeric_or_exact(half, "0.5004", tolerance=1e-3) is Verdict.RIGHT
    assert numeric_or_exact(half, "0.5004", tolerance=1e-4) is Verdict.WRONG
    assert numeric_or_exact(half, "0.50", tolerance=0.0) is Verdict.RIGHT
    assert numeric_or_exact(half, "0.5000000000000001", tolerance=0.0) is Verdict.WRONG


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("2.718281828", "2.7182818"),  # fewer digits
        ("2.718281828", "2.718281"),  # and cut off instead of rounded
        ("2.7182818", "2.718281828459045"),
        ("0.30000000000000004", "0.3"),  # what floating point leaves behind
        ("0.3", "0.30000000000000004"),
        ("2.8000000000000003", "2.8000000000000007"),
    ],
)
def test_decimals_that_differ_by_less_than_they_both_show_agree(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT
    left, right = leaves.Leaf(expected), leaves.Leaf(given)
    assert leaves.same(left, right, 1e-6)


def test_hostile_answer_is_judged_at_once():
    assert verdict("4", "1," * 50_000) is Verdict.WRONG
    assert verdict("4", "1e" + "9" * 50) is Verdict.WRONG


def test_exact_compares_texts():
    problem = Problem(id="p", question="q", answer="a\nb")
    for given, expected in ((" a\nb\n", Verdict.RIGHT), ("a b", Verdict.WRONG), ("A\nB", "wrong")):
        assert exact(problem, given) == expected
    assert exact(problem, " ") is Verdict.NO_ANSWER


CHOICES = ("Paris", "London", "New  York", "london", "B")


@pytest.mark.parametrize(
    ("expected", "given", "verdict"),
    [
        ("B", "B", "right"),
        ("B", "(B)", "right"),
        ("B", "b.", "right"),
        ("B", "B)", "right"),
        ("B", "B) London", "right"),
        ("B", "(B)  LONDON.", "right"),
        ("B", "B: london", "right"),
        ("B", "\\text{(B)}", "right"),
        ("B", "$\\textbf{B}$", "right"),
        ("C", "new york", "right"),
        ("A", "Paris", "right"),
        ("E", "(E)", "right"),
        ("(C)", "C", "right"),
        ("B", "A", "wrong"),
        ("B", "B) Paris", "wrong"),  # it contradicts itself
        ("B", "London", "wrong"),  # two choices are called that
        ("E", "B", "wrong"),  # a letter is a letter before it is a text
        ("B", "B or C", "wrong"),
        ("B", "B, C", "wrong"),
        ("B", "BC", "wrong"),
        ("B", "the answer is B", "wrong"),
        ("B", "F", "wrong"),
        ("A", "A Paris", "wrong"),
        ("B", "?", "wrong"),
        ("B", " ", "no_answer"),
        ("F", "F", "unverifiable"),  # no such choice
        ("Paris", "A", "unverifiable"),  # no letter
    ],
)
def test_choice(expected, given, verdict):
    problem = Problem(id="p", question="q", answer=expected, choices=CHOICES)
    assert choice(problem, given) == verdict


def test_choice_whose_texts_are_not_known():
    problem = Problem(id="p", question="q", answer="B")
    assert choice(problem, "(b)") is Verdict.RIGHT
    assert choice(problem, "B) London") is Verdict.WRONG
