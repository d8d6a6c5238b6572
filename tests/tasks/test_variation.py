"""Word problems with other numbers: the answer stays that of the expression."""

import ast
import random
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtpo_jax.tasks.variation import vary_numbers
from gtpo_jax.types import Problem


def problem(question: str, answer: str) -> Problem:
    return Problem(id="p", question=question, answer=answer, family="f", verifier="exact")


def values(expression: str) -> list[Fraction]:
    """Values of the expression and of all its parts, computed by Python."""
    exact = re.sub(r"\d+(\.\d+)?", lambda at: f"Fraction('{at[0]}')", expression)
    nodes = [n for n in ast.walk(ast.parse(exact, mode="eval")) if isinstance(n, ast.expr)]
    parts = [n for n in nodes if isinstance(n, ast.BinOp | ast.Call)]
    return [eval(ast.unparse(node), {"Fraction": Fraction}) for node in parts]


SOLVED = [
    ("Ann has 3 pens and buys 12. How many now?", "3 + 12", "15"),
    ("Ben had 304 cards and has 276 left. How many are gone?", "304 - 276", "28"),
    ("Eva packs 56 eggs in each of 9 boxes. How many eggs?", "56 * 9", "504"),
    ("Tom shares 5530 nuts among 79 friends. How many each?", "5530 / 79", "70"),
    ("Ann earned 20, then 16, for 9 hours each. How much an hour?", "(20 + 16) / 9", "4"),
    ("Ben has 45 eggs, drops 5 and packs them by 8. How many boxes?", "(45 - 5) / 8", "5"),
    ("Of 453 houses one group saw 238, one 190. What remains?", "453 - (238 + 190)", "25"),
    ("Eva buys 12 bags of 4 and 3 of 16. How many pens?", "(12 * 4) + (3 * 16)", "96"),
]


@pytest.mark.parametrize(("question", "expression", "answer"), SOLVED)
@given(seed=st.integers(0, 10_000))
def test_the_answer_is_that_of_the_expression_and_all_on_the_way_is_whole(
    question, expression, answer, seed
):
    varied = vary_numbers(problem(question, answer), expression, random.Random(seed))
    if varied is None:  # no draw of a few did
        return
    new, code = varied
    assert Fraction(new.answer) == values(code)[0]
    assert all(value >= 0 and value.denominator == 1 for value in values(code))
    assert (new.family, new.verifier) == ("f", "exact")


@pytest.mark.parametrize(("question", "expression", "answer"), SOLVED)
def test_most_draws_succeed_and_differ(question, expression, answer):
    drawn = [
        vary_numbers(problem(question, answer), expression, random.Random(seed))
        for seed in range(40)
    ]
    found = [varied for varied in drawn if varied is not None]
    assert len(found) >= 36
    assert len({new.question for new, _ in found}) >= 30
    assert len({new.id for new, _ in found}) == len({new.question for new, _ in found})


def test_words_and_structure_stay():
    question, expression, answer = SOLVED[4]
    new, code = (
        vary_numbers(problem(question, answer), expression, random.Random(1)) or pytest.fail()
    )
    for before, after in ((question, new.question), (expression, code)):
        assert re.sub(r"\d+", "n", before) == re.sub(r"\d+", "n", after)


def test_a_number_is_the_same_wherever_it_stands():
    new, code = (
        vary_numbers(
            problem("Of 30 eggs, 12 are brown. 30 fit a tray. White ones?", "18"),
            "30 - 12",
            random.Random(3),
        )
        or pytest.fail()
    )
    first, second, third = re.findall(r"\d+", new.question)
    assert first == third != "30"
    assert code == f"{first} - {second}"


def test_ones_constants_and_decimals_stay():
    new, code = (
        vary_numbers(
            problem("If 1 pen costs 15 cents, what do 2 dozen cost, 2.5 off?", "360"),
            "(15 * 2) * 12",
            random.Random(5),
        )
        or pytest.fail()
    )
    assert new.question.startswith("If 1 pen") and new.question.endswith("2.5 off?")
    assert code.endswith("* 12")


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("3 + 12", "16"),  # another answer
        ("3 +", "15"),
        ("abs(3) + 12", "15"),
        ("3 ** 12", "531441"),
        ("7 + 8", "15"),  # no number of the question
        ("12 / 0", "3"),
        ("3 + 12", "fifteen"),
    ],
)
def test_what_cannot_be_varied_is_left_alone(expression, answer):
    question = "Ann has 3 pens and buys 12. How many now?"
    assert vary_numbers(problem(question, answer), expression, random.Random(0)) is None


def test_the_same_seed_gives_the_same_problem():
    question, expression, answer = SOLVED[0]
    first, second = (
        vary_numbers(problem(question, answer), expression, random.Random("a/1")) for _ in range(2)
    )
    assert first == second
