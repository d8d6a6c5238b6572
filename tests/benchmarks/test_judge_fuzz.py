"""Expressions that cost much are judged in bounded time."""

import random

import pytest

pytest.importorskip("math_verify")

from benchmarks import judge_fuzz
from benchmarks.judge_expressions import LONGEST, answer
from gtpo_jax.types import Verdict


def test_expressions_are_those_of_the_seed_short_and_of_many_kinds():
    texts = [answer(random.Random(seed)) for seed in range(300)]
    assert texts == [answer(random.Random(seed)) for seed in range(300)]
    assert max(map(len, texts)) <= LONGEST
    assert len(set(texts)) > 200
    for construct in ("\\frac", "**", "!", "binom", "sin", "\\int", "pmatrix", "^{", "\\le"):
        assert any(construct in text for text in texts), construct


def test_each_expression_is_given_and_expected():
    both = list(judge_fuzz.records(20, seed=3))
    for given, expected in zip(both[::2], both[1::2], strict=True):
        assert given["given"] == expected["expected"]
        assert expected["expected"] in expected["given"]


@pytest.mark.slow
def test_no_expression_takes_a_second():
    found = judge_fuzz.fuzz(150, seed=0, workers=2)
    assert sum(found.verdicts.values()) == len(found.seconds) == 300
    assert found.seconds[0][0] <= 1.0, found.seconds[0]
    assert found.lost == 0
    assert {Verdict.RIGHT, Verdict.WRONG, Verdict.UNVERIFIABLE} == {*found.verdicts}
    assert judge_fuzz.figures(found)["slowest record"].holds
