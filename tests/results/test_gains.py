"""Gains by cause: by hand, and the two ways of splitting against each other."""

import math
import statistics
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gtpo_jax.decoding import sampling
from gtpo_jax.language import grammar
from gtpo_jax.results import gains
from gtpo_jax.results.evaluation import RIGHT, outcome_of, score
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, ToolResult, ToolStatus
from gtpo_jax.verifiers import numeric_or_exact
from tests.outcomes import outcome, samples
from tests.tiny import BYTES, DIALOGUE

WAYS = (RIGHT, *gains.FAILURES)


def test_a_sample_has_one_way():
    assert [gains.way_of(outcome(way=way)) for way in WAYS] == list(WAYS)


def call(code):
    return DIALOGUE.call("", code)


def answer(text):
    return DIALOGUE.answer("", text)


def observed(output):
    return DIALOGUE.observation(output, budget=LIMITS.observation_tokens)[0]


LIMITS = RolloutLimits(
    slots=3,
    context=96,
    prompt_tokens=12,
    max_turns=3,
    turn_tokens=24,
    observation_tokens=40,
    segment_steps=8,
    prefill_prompts=2,
    extend_width=8,
)
END = BYTES.control_id(grammar.END)
UNCLOSED = [DIALOGUE.unclosed_call("", "2+2"), observed("Error: the code is not enclosed once")]
# How a sample fails → questions, and all that follows their prompts. The right answer is 4.
SCRIPTS = {
    RIGHT: {
        "four": [call("2+2"), observed("4"), answer("4")],
        "mended": [*UNCLOSED, call("2+2"), observed("4"), answer("4")],
        "guessed": [answer("4")],
    },
    "wrong": {"five": [call("2+2"), observed("4"), answer("5")]},
    "failed call": {"error": [call("1/0"), observed("ZeroDivisionError"), answer("5")]},
    "badly formed": {
        "nothing": [np.array([ord("z"), END], np.int32)],
        "unclosed": [*UNCLOSED, call("2+2"), observed("4"), answer("5")],
    },
    "no call": {"at once": [answer("5")], "never ran": [*UNCLOSED, answer("5")]},
    "cut off": {
        "turns": [call("2+2"), observed("4")] * 3,
        "tokens": [np.full(40, ord("z"), np.int32)],
    },
}


@pytest.mark.slow
def test_ways_of_what_a_policy_did():
    scripts = {question: parts for group in SCRIPTS.values() for question, parts in group.items()}
    prompted = [np.concatenate([DIALOGUE.prompt(q), *parts]) for q, parts in scripts.items()]
    forward = scripted_forward(prompted, vocab_size=BYTES.vocab_size, otherwise=ord("?"))
    tool = FakeTool(
        {"2+2": "4", "1/0": ToolResult(status=ToolStatus.ERROR, stderr="ZeroDivisionError")}
    )
    engine = RolloutEngine(forward, DIALOGUE, tool, numeric_or_exact, LIMITS, sampling.greedy)
    asked = [
        Request(problem=Problem(id=q, question=q, answer="4"), group=group, sample=0)
        for group, q in enumerate(scripts)
    ]
    trajectories, _ = engine.run({}, asked, seed=0, step=0)
    found = {way: [] for way in SCRIPTS}
    for trajectory in trajectories:
        assert trajectory.included
        found[gains.way_of(outcome_of(trajectory))].append(trajectory.problem.question)
    assert found == {way: list(group) for way, group in SCRIPTS.items()}


def test_problems_weigh_the_same_whatever_their_samples():
    outcomes = [
        *samples("a", RIGHT, "wrong", "wrong", "no call"),
        *samples("b", "cut off"),
        outcome("a", 4, way="badly formed", included=False),
        outcome("c", 0, way="failed call", included=False),
    ]
    assert gains.shares(outcomes) == {
        RIGHT: 0.125,
        "wrong": 0.25,
        "no call": 0.125,
        "cut off": 0.5,
        "badly formed": 0,
        "failed call": 0,
    }


def test_without_problems_all_is_0():
    assert gains.shares([]) == dict.fromkeys(WAYS, 0.0)
    nothing = gains.Part(problems=0, before=0, after=0, gain=0)
    compared = gains.compare([], [], samples("a", RIGHT))
    assert (compared.problems, compared.left_out, compared.gain, compared.error) == (0, 1, 0, 0)
    assert compared.parts == {RIGHT: nothing, "wrong": nothing}


def test_a_comparison_by_hand():
    greedy = [outcome("a"), outcome("b", way="wrong"), outcome("c", way="no call"), outcome("d")]
    before = [
        *samples("a", RIGHT, "wrong"),
        *samples("b", "no call", "no call", "wrong", RIGHT),
        *samples("c", "cut off"),
        *samples("d", RIGHT),
    ]
    after = [
        *samples("c", "wrong"),
        *samples("a", RIGHT),
        *samples("b", RIGHT, "wrong"),
        outcome("d", 0, included=False),
        *samples("e", RIGHT),
    ]
    found = gains.compare(greedy, before, after)
    # d has no known outcome after, and e none before.
    assert (found.problems, found.left_out) == (3, 2)
    assert found.gain == pytest.approx((0.5 + 0.25 + 0) / 3)
    assert found.error == pytest.approx(statistics.stdev([0.5, 0.25, 0]) / math.sqrt(3))
    assert found.before == pytest.approx(
        gains.shares([each for each in before if each.problem != "d"])
    )
    assert found.after["wrong"] == pytest.approx((1 + 0 + 0.5) / 3)
    known, new = found.parts[RIGHT], found.parts["wrong"]
    assert (known.problems, known.before, known.after) == (1, 0.5, 1)
    assert (new.problems, new.before, new.after) == (2, 0.125, 0.25)
    assert (known.gain, new.gain) == pytest.approx((0.5 / 3, 0.25 / 3))


evaluations = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(WAYS), st.booleans()), max_size=20
).map(
    lambda drawn: [
        outcome(problem, sample, way=way, included=included)
        for sample, (problem, way, included) in enumerate(drawn)
    ]
)


@hypothesis.given(evaluations)
def test_shares_are_avg_at_k_and_the_rest_of_1(outcomes):
    found, scores = gains.shares(outcomes), score(outcomes)
    assert found[RIGHT] == pytest.approx(scores.average.value, abs=1e-12)
    assert sum(found.values()) == pytest.approx(float(scores.problems > 0))
    assert min(found.values()) >= 0


def exact_gain(before, after, problems):
    """The gain in fractions."""

    def average(outcomes, problem):
        known = [o.success for o in outcomes if o.problem == problem and o.included]
        return Fraction(sum(known), len(known))

    gained = [average(after, problem) - average(before, problem) for problem in problems]
    return sum(gained, Fraction(0)) / max(len(gained), 1)


@hypothesis.given(evaluations, evaluations, evaluations)
def test_both_accounts_add_up_to_the_gain(greedy, before, after):
    found = gains.compare(greedy, before, after)
    known = [{o.problem for o in given if o.included} for given in (greedy, before, after)]
    exact = float(exact_gain(before, after, set.intersection(*known)))
    lost = sum(found.before[way] - found.after[way] for way in gains.FAILURES)
    parts = found.parts.values()
    assert found.problems == len(set.intersection(*known)) == sum(part.problems for part in parts)
    for account in (found.gain, lost, sum(part.gain for part in parts)):
        assert account == pytest.approx(exact, abs=1e-12)
    for part in parts:
        weight = part.problems / max(found.problems, 1)
        assert part.gain == pytest.approx(weight * (part.after - part.before), abs=1e-12)


@hypothesis.given(evaluations, evaluations)
def test_a_policy_gains_nothing_over_itself(greedy, outcomes):
    found = gains.compare(greedy, outcomes, outcomes)
    assert found.gain == found.error == 0 and found.before == found.after
    assert all(part.gain == 0 and part.before == part.after for part in found.parts.values())
