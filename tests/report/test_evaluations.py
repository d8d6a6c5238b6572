"""Evaluations of a page: the figures of bars, and of comparisons with the first one."""

import dataclasses

import pytest

from gtpo_jax.report import evaluations
from gtpo_jax.results.evaluation import RIGHT
from tests.outcomes import outcome, samples
from tests.report import made

WAYS = ["right", "wrong", "failed call", "badly formed", "no call", "cut off"]


def test_bars_have_all_samples_in_the_order_of_the_ways():
    sampled = [*samples("a", RIGHT, "wrong"), *samples("b", "cut off", "no call")]
    sampled.append(outcome("b", 2, included=False))
    held_out = made.make_held_out("sft-4", sampled=sampled, greedy=samples("a", "badly formed"))
    found = evaluations.section({"mine": [held_out], "other": []})
    assert (found["ways"], found["several"]) == (WAYS, True)
    [run] = found["runs"]
    assert (run["run"], run["comparisons"]) == ("mine", [])
    first, second = run["bars"]
    size = {"problems": 2, "samples": 4, "excluded": 1}
    shares = [0.25, 0.25, 0, 0, 0.25, 0.25]
    assert first == {"name": "sft-4", "mode": "sampled", "shares": shares} | size
    size = {"problems": 1, "samples": 1, "excluded": 0}
    assert second == {"name": "sft-4", "mode": "greedy", "shares": [0, 0, 0, 1, 0, 0]} | size


def test_the_first_evaluation_is_compared_with_each_later_one():
    first = made.make_held_out(
        "sft-4",
        sampled=[*samples("a", RIGHT, "wrong"), *samples("b", "no call"), *samples("c", RIGHT)],
        greedy=[*samples("a", RIGHT), *samples("b", "wrong"), *samples("c", RIGHT)],
    )
    second = made.make_held_out("train-1", sampled=samples("c", "wrong"), greedy=[])
    third = made.make_held_out(
        "train-2", sampled=[*samples("a", RIGHT), *samples("b", "wrong", RIGHT)], greedy=[]
    )
    [run] = evaluations.section({"mine": [first, second, third]})["runs"]
    earlier, later = run["comparisons"]
    assert earlier["names"] == ["sft-4", "train-1"]
    assert (earlier["problems"], earlier["left_out"], earlier["gain"]) == (1, 2, -1)
    assert later == {
        "names": ["sft-4", "train-2"],
        "problems": 2,
        "left_out": 1,
        "gain": 0.5,
        "error": 0,
        "before": [0.25, 0.25, 0, 0, 0.5, 0],
        "after": [0.75, 0.25, 0, 0, 0, 0],
        "parts": [
            {"solved": True, "problems": 1, "before": 0.5, "after": 1, "gain": 0.25},
            {"solved": False, "problems": 1, "before": 0, "after": 0.5, "gain": 0.25},
        ],
    }


@pytest.mark.parametrize("field", ["question", "answer"])
def test_problems_of_one_name_and_other_texts_are_not_compared(field):
    before, after = [
        made.make_held_out(name, sampled=samples("a", way), greedy=samples("a", way))
        for name, way in (("sft-4", "wrong"), ("train-2", RIGHT))
    ]
    question, answer = after.texts["a"]
    texts = {"a": ("?", answer) if field == "question" else (question, "?")}
    after = dataclasses.replace(after, texts=texts)
    [run] = evaluations.section({"mine": [before, after]})["runs"]
    [compared] = run["comparisons"]
    assert (compared["problems"], compared["left_out"], compared["gain"]) == (0, 1, 0)
