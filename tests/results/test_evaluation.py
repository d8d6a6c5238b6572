"""Evaluations of trajectories, by hand; estimators against enumeration, intervals against
simulation.
"""

import collections
import itertools
import json
import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gtpo_jax.results import evaluation
from gtpo_jax.results.evaluation import (
    NOTHING,
    RIGHT,
    confidence_interval,
    evaluate_trajectories,
    maj_at_k,
    outcome_of,
    pass_at_k,
    score,
)
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Trajectory, Turn, Verdict


def turn(tokens=4, violation=None, status=None):
    return Turn(
        tokens=np.zeros(tokens, np.int32),
        logprobs=np.zeros(tokens, np.float32),
        text="",
        violation=violation,
        results=() if status is None else (ToolResult(status=status),),
        observation=np.zeros(7, np.int32),
    )


def trajectory(
    turns, verdict, stop=StopReason.ANSWERED, family="a", *, id="1", sample=0, answer=None
):
    return Trajectory(
        problem=Problem(id=id, question="?", answer="!", family=family),
        group=0,
        sample=sample,
        prompt=np.zeros(5, np.int32),
        turns=tuple(turns),
        stop_reason=stop,
        verdict=verdict,
        answer=answer,
    )


TRAJECTORIES = [
    trajectory([turn(status=ToolStatus.OK), turn(tokens=2)], Verdict.RIGHT, id="0"),
    trajectory([turn(status=ToolStatus.ERROR), turn(status=ToolStatus.OK), turn()], Verdict.WRONG),
    trajectory(
        [turn(tokens=6, violation="x")], Verdict.NO_ANSWER, StopReason.TURN_LIMIT, "b", id="3"
    ),
    trajectory([turn(violation="x")], Verdict.RIGHT, family="b", id="2"),
    # Excluded: the outcome of none of these is known.
    trajectory(
        [turn(status=ToolStatus.INFRA_ERROR)], Verdict.NO_ANSWER, StopReason.TOOL_FAILURE, id="4"
    ),
    trajectory([turn(99)], Verdict.NO_ANSWER, StopReason.CONTEXT_FULL, "c", id="5"),
    trajectory([turn(99)], Verdict.UNVERIFIABLE, family="c", id="6"),
]


def test_figures_are_those_of_the_known_outcomes():
    result = evaluate_trajectories(TRAJECTORIES)
    assert (result.trajectories, result.excluded) == (4, 3)
    assert result.success == 0.5
    assert result.success_error == pytest.approx((0.5 * 0.5 / 4) ** 0.5)
    assert result.violations == 0.5
    assert result.turns == (2 + 3 + 1 + 1) / 4
    assert result.tool_calls == 3 / 4
    assert result.tool_errors == pytest.approx(1 / 3)
    assert result.tokens == (6 + 12 + 6 + 4) / 4
    assert result.truncated == 1 / 4
    assert result.families == {"a": 0.5, "b": 0.5}


def test_stop_reasons_count_everything_and_name_every_reason():
    reasons = evaluate_trajectories(TRAJECTORIES).stop_reasons
    assert set(reasons) == {str(reason) for reason in StopReason}
    assert sum(reasons.values()) == len(TRAJECTORIES)
    assert (reasons["answered"], reasons["tool_failure"], reasons["max_turns"]) == (4, 1, 0)


@pytest.mark.parametrize("trajectories", [[], TRAJECTORIES[4:]], ids=["none", "excluded"])
def test_without_a_known_outcome_every_share_is_zero(trajectories):
    result = evaluate_trajectories(trajectories)
    assert (result.trajectories, result.excluded) == (0, len(trajectories))
    shares = (result.success, result.success_error, result.violations, result.turns)
    shares += (result.tool_calls, result.tool_errors, result.tokens, result.truncated)
    assert set(shares) == {0.0} and result.families == {}


def test_order_changes_nothing():
    assert evaluate_trajectories(TRAJECTORIES[::-1]) == evaluate_trajectories(TRAJECTORIES)


def test_record_is_json():
    record = evaluate_trajectories(TRAJECTORIES).record()
    assert json.loads(json.dumps(record)) == record
    assert record["success"] == 0.5


def test_standard_error_is_that_of_problems():
    won = [[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]
    trajectories = [
        trajectory([turn()], Verdict.RIGHT if right else Verdict.WRONG, id=str(i), sample=j)
        for i, row in enumerate(won)
        for j, right in enumerate(row)
    ]
    expected = np.std(np.mean(won, axis=1)) / math.sqrt(len(won))
    assert evaluate_trajectories(trajectories).success_error == pytest.approx(expected)


def subsets(items, k):
    return list(itertools.combinations(items, k))


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        samples = [i < c for i in range(n)]
        share = np.mean([any(subset) for subset in subsets(samples, k)])
        assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-15)


@hypothesis.given(st.data())
def test_pass_at_k_is_the_formula_where_binomials_overflow(data):
    n = data.draw(st.integers(1, 3000))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-13)


def test_pass_at_k_knows_what_a_bootstrap_does_not():
    # Drawn with replacement, best@16 would be .632 and best@8 .400.
    assert pass_at_k(16, 1, 16) == 1.0
    assert pass_at_k(16, 1, 8) == pytest.approx(0.5)
    assert pass_at_k(16, 0, 16) == 0.0


def test_pass_at_k_of_fewer_samples_is_right_on_average():
    p, k, n = 0.3, 3, 5
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    mean = sum(chance * pass_at_k(n, c, k) for c, chance in enumerate(chances))
    assert mean == pytest.approx(1 - (1 - p) ** k)


def majority_by_hand(votes, k):
    """Counts every subset, and every tie for the lead."""
    shares = []
    for subset in subsets(votes, k):
        counts = collections.Counter(subset)
        leaders = [vote for vote, count in counts.items() if count == max(counts.values())]
        shares.append(Fraction(leaders.count(RIGHT), len(leaders)))
    return float(sum(shares) / len(shares))


@hypothesis.given(
    st.lists(st.sampled_from([RIGHT, NOTHING, "a", "b", "c"]), min_size=1, max_size=9)
)
def test_maj_at_k_is_the_mean_over_all_subsets(votes):
    for k in range(1, len(votes) + 1):
        assert maj_at_k(votes, k) == pytest.approx(majority_by_hand(votes, k), abs=1e-15)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([RIGHT, RIGHT, "a"], 1.0),
        ([RIGHT, "a", "a", "b"], 0.0),
        ([RIGHT, "a"], 1 / 2),
        ([RIGHT, "a", "b"], 1 / 3),
        ([RIGHT, RIGHT, "a", "a", "b"], 1 / 2),
        ([RIGHT, NOTHING, NOTHING], 0.0),  # no answer can win, and is wrong then
        ([NOTHING, NOTHING], 0.0),
        ([RIGHT] * 40 + ["a"] * 30 + list("bcdefghijk"), 1.0),
    ],
)
def test_majority_of_all_samples(votes, expected):
    assert maj_at_k(votes, len(votes)) == pytest.approx(expected)


def test_maj_at_k_of_many_samples_is_found_by_drawing_some():
    votes = [RIGHT] * 20 + ["a"] * 17 + [NOTHING] * 9 + list("bcdefghijklmnopqrs")
    rng = np.random.default_rng(0)
    share = np.mean([maj_at_k(list(rng.choice(votes, 15, replace=False)), 15) for _ in range(3000)])
    assert maj_at_k(votes, 15) == pytest.approx(share, abs=4 * 0.5 / math.sqrt(3000))


@pytest.mark.parametrize("call", [lambda k: pass_at_k(4, 1, k), lambda k: maj_at_k(["a"] * 4, k)])
@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_the_samples_is_an_error(call, k):
    with pytest.raises(ValueError, match=f"between 1 and the number of samples, 4, got {k}"):
        call(k)
    with pytest.raises(ValueError, match="c must be between 0 and n = 4, got 5"):
        pass_at_k(4, 5, 2)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("12", " 12 ", True),
        ("Paris  is", "paris is", True),
        ("12", "13", False),
        (None, "  ", True),
        ("right", None, False),
    ],
)
def test_wrong_answers_are_one_vote_when_their_texts_are_equal(first, second, same):
    votes = [evaluation.vote(trajectory([], Verdict.WRONG, answer=a)) for a in (first, second)]
    assert (votes[0] == votes[1]) == same
    assert RIGHT not in votes


def test_all_right_answers_are_one_vote():
    votes = {evaluation.vote(trajectory([], Verdict.RIGHT, answer=a)) for a in ("1/2", "0.5")}
    assert votes == {RIGHT}


def drawn(results):
    """Trajectories from one string a problem: R right, a letter a wrong answer, ? unknown."""
    return [
        trajectory(
            [turn()],
            {"R": Verdict.RIGHT, "?": Verdict.UNVERIFIABLE}.get(letter, Verdict.WRONG),
            id=str(i),
            sample=j,
            answer=letter,
            family="even" if i % 2 == 0 else "odd",
        )
        for i, row in enumerate(results)
        for j, letter in enumerate(row)
    ]


def scores_of(*results):
    return score([outcome_of(t) for t in drawn(results)])


def test_scores_by_hand():
    scores = scores_of("Raab", "RRaa", "abcd", "RRRR")
    assert (scores.problems, scores.left_out, scores.samples) == (4, 0, 4)
    assert scores.average.value == pytest.approx((1 / 4 + 1 / 2 + 0 + 1) / 4)
    assert {k: e.value for k, e in scores.pass_at.items()} == pytest.approx(
        {1: 7 / 16, 2: (1 / 2 + 5 / 6 + 0 + 1) / 4, 4: 3 / 4}
    )
    assert {k: e.value for k, e in scores.maj_at.items()} == pytest.approx({4: 3 / 8})
    assert {name: e.value for name, e in scores.families.items()} == {"even": 1 / 8, "odd": 3 / 4}
    assert set(scores.record()) >= {"avg@4", "pass@1", "pass@4", "maj@4", "families"}


def test_unknown_outcomes_lower_the_samples_of_their_problem_and_are_counted():
    # Never a failure: with the unknown ones as wrong the first would be 1/4.
    scores = scores_of("R???", "RRaa", "????")
    assert (scores.problems, scores.left_out, scores.samples) == (2, 1, 4)
    assert scores.average.value == pytest.approx((1 + 1 / 2) / 2)
    assert [e.problems for e in scores.pass_at.values()] == [2, 1, 1]
    assert scores.pass_at[2].value == pytest.approx(5 / 6)
    assert scores.maj_at[4].problems == 1
    assert evaluate_trajectories(drawn(["R???", "????"])).excluded == 7


def test_samples_that_come_twice_count_once():
    once = drawn(["Ra", "RR"])
    assert score([outcome_of(t) for t in once * 2]) == score([outcome_of(t) for t in once])


def test_scores_of_nothing_say_that_nothing_is_known():
    for outcomes in ([], [outcome_of(t) for t in drawn(["??"])]):
        average = score(outcomes).average
        assert (average.value, average.low, average.high, average.problems) == (0.0, 0.0, 1.0, 0)


def test_one_sample_has_no_majority():
    scores = scores_of("R", "a")
    assert list(scores.pass_at) == [1] and scores.maj_at == {}


def wilson(successes, count, quantile):
    """The score interval by its definition: all p with |p̂ − p| ≤ z sqrt(p (1 − p) / n)."""
    p = np.linspace(0, 1, 200_001)
    share = successes / count
    inside = p[np.abs(share - p) <= quantile * np.sqrt(p * (1 - p) / count) + 1e-12]
    return inside.min(), inside.max()


@pytest.mark.parametrize("count", [12, 50, 300])
def test_where_all_problems_fail_the_interval_is_that_of_as_many_failures(count):
    low, high = confidence_interval([0.0] * count)
    assert low == 0.0 and 1 / count < high < 6 / count
    assert high >= 1 - 0.05 ** (1 / count), "above it so many failures are unlikely"
    assert confidence_interval([1.0] * count) == (pytest.approx(1 - high), 1.0)


def test_interval_of_single_samples_is_wilson_s():
    values = [1.0] * 60 + [0.0] * 140
    expected = wilson(60, 200, 1.97)  # t of 199 degrees
    assert confidence_interval(values) == pytest.approx(expected, abs=2e-3)


def test_interval_of_resembling_samples_is_as_wide_as_that_of_their_problems():
    rng = np.random.default_rng(0)
    alike = [1.0] * 80 + [0.0] * 120
    apart = rng.binomial(16, 0.4, 200) / 16
    widths = [np.diff(confidence_interval(values))[0] for values in (alike, apart)]
    assert widths[0] == pytest.approx(2 * 1.97 * math.sqrt(0.24 / 200), rel=0.03)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.2)


@pytest.mark.parametrize("values", [[], [0.0], [1.0], [0.5]])
def test_fewer_than_two_problems_tell_nothing_of_their_spread(values):
    assert confidence_interval(values) == (0.0, 1.0)


@hypothesis.given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40))
def test_interval_holds_the_mean_has_a_width_and_is_symmetric(values):
    low, high = confidence_interval(values)
    assert 0.0 <= low <= np.mean(values) <= high <= 1.0 and high - low > 0.0
    mirrored = confidence_interval([1.0 - value for value in values])
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))
    narrow = confidence_interval(values, level=0.8)
    assert narrow[0] >= low and narrow[1] <= high


def test_interval_of_what_is_no_share_is_an_error():
    with pytest.raises(ValueError, match=r"within 0 and 1, got 0\.5 to 2\.0"):
        confidence_interval([0.5, 2.0])


def draw_problems(rng, mean, correlation, shape, samples):
    """Shares of right samples of beta-binomial problems; samples of one problem correlate so."""
    if correlation == 0:
        chances = np.full(shape, mean)
    elif correlation == 1:
        chances = (rng.random(shape) < mean).astype(float)
    else:
        strength = 1 / correlation - 1
        chances = rng.beta(mean * strength, (1 - mean) * strength, shape)
    return rng.binomial(samples, chances) / samples


@pytest.mark.parametrize("problems", [20, 60, 256])
@pytest.mark.parametrize("mean", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("correlation", "samples"), [(1, 1), (0, 8), (0.1, 8), (0.4, 8), (0.8, 8), (1, 8)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(problems, mean, correlation, samples):
    rng = np.random.default_rng([problems, int(mean * 100), int(correlation * 10), samples])
    runs = 400
    values = draw_problems(rng, mean, correlation, (runs, problems), samples)
    intervals = np.array([confidence_interval(row) for row in values])
    held = np.mean((intervals[:, 0] <= mean) & (mean <= intervals[:, 1]))
    # Conservative near 0 and 1; the share of 400 runs has a standard error of .011.
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("correlation", [0, 0.1, 0.4, 0.8])
def test_intervals_of_many_problems_are_no_wider_than_they_must_be(correlation):
    rng = np.random.default_rng(1)
    values = draw_problems(rng, 0.5, correlation, (1000, 256), 8)
    widths = [np.diff(confidence_interval(row))[0] for row in values[:200]]
    exact = 2 * 1.96 * np.std(values.mean(axis=1))
    assert 0.95 < np.mean(widths) / exact < 1.1
