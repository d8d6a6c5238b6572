"""Rewards of turns."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.learner import packing
from gtpo_jax.parts import rewards
from gtpo_jax.types import EpisodeBatch
from tests import reference
from tests.tiny import make_trajectory

MASK = jnp.array([[True, True, False], [True, False, False], [False, False, False]])


def test_outcome_stands_once_on_the_last_turn_and_nowhere_without_turns():
    out = rewards.outcome_rewards(jnp.array([1.0, 0.3, 0.7]), MASK)
    chex.assert_trees_all_equal(out, jnp.array([[0.0, 1.0, 0.0], [0.3, 0.0, 0.0], [0.0] * 3]))


def test_format_penalty_falls_on_each_violating_turn_that_exists():
    violations = jnp.array([[True, True, True], [False, True, True], [True, True, True]])
    out = rewards.format_rewards(violations, MASK, penalty=0.25)
    chex.assert_trees_all_equal(out, jnp.array([[-0.25, -0.25, 0.0], [0.0] * 3, [0.0] * 3]))


def episodes(success, violations, mask=MASK, included=True) -> EpisodeBatch:
    count = len(mask)
    return EpisodeBatch(
        group_ids=jnp.zeros(count, jnp.int32),
        included=jnp.full(count, included),
        success=jnp.asarray(success, bool),
        turn_mask=mask,
        violations=jnp.asarray(violations, bool),
    )


def test_rewards_are_the_sum_of_their_parts():
    violations = jnp.array([[True, True, False], [False, True, False], [False] * 3])
    named = {"outcome": rewards.outcome(), "format": rewards.format_penalty(0.1)}
    total, parts = rewards.evaluate(named, episodes([True, False, True], violations))
    chex.assert_trees_all_close(total, jnp.array([[-0.1, 0.9, 0.0], [0.0] * 3, [0.0] * 3]))
    chex.assert_trees_all_equal(total, parts["outcome"] + parts["format"])
    with pytest.raises(ValueError, match="at least one reward, got none"):
        rewards.evaluate({}, episodes([True] * 3, violations))


@pytest.mark.parametrize(
    "success, violation, expected",
    [(True, False, 1.0), (True, True, 0.0), (False, False, 0.0), (False, True, 0.0)],
)
def test_forfeited_outcome_is_the_minimum_of_accuracy_and_format(success, violation, expected):
    mask = jnp.array([[True, True, False]])
    violations = jnp.array([[violation, False, True]])  # the last is no turn at all
    named = {"outcome": rewards.outcome(), "format": rewards.forfeit()}
    out = rewards.evaluate(named, episodes([success], violations, mask)).total
    chex.assert_trees_all_equal(out, jnp.array([[0.0, expected, 0.0]]))


def test_outcome_may_punish_failures_and_is_zero_for_unknown_ones():
    part = rewards.outcome(right=1.0, wrong=-1.0)
    nothing = jnp.zeros((3, 3), bool)
    out = part.apply(episodes([True, False, False], nothing))
    chex.assert_trees_all_equal(out, jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0] * 3]))
    assert not np.any(part.apply(episodes([True, False, False], nothing, included=False)))


def test_reward_of_nan_outside_the_turns_is_dropped():
    broken = rewards.Reward(lambda e: jnp.where(e.turn_mask, 1.0, jnp.nan))
    out = rewards.evaluate({"x": broken}, episodes([True] * 3, jnp.zeros((3, 3), bool))).total
    chex.assert_trees_all_equal(out, MASK.astype(jnp.float32))


@pytest.mark.parametrize(
    "tokens, penalty", [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (500, -1.0)]
)
def test_overlong_penalty_grows_over_the_buffer(tokens, penalty):
    # DAPO, Eq. 13: 0 up to 80 of 100 tokens, −1 from 100 on.
    out = rewards.overlong_penalties(jnp.array([tokens]), longest=100, buffer=20)
    np.testing.assert_allclose(out, [penalty], atol=1e-7)


def test_overlong_penalty_counts_the_tokens_that_the_policy_wrote():
    rng = np.random.default_rng(0)
    part = rewards.overlong(10, buffer=4)
    batch = packing.episode_batch(
        [make_trajectory(rng, [(3, 50), (5, 0)]), make_trajectory(rng, [(2, 9)])],
        max_turns=2,
        needs=part.facts,
    )
    out = part.apply(jax.device_put(batch))
    np.testing.assert_allclose(out, [[0.0, -0.5], [0.0, 0.0]])


def test_own_reward_of_trajectories_and_of_turns_is_weighted():
    rng = np.random.default_rng(0)
    two, one = make_trajectory(rng, [(3, 1), (5, 0)]), make_trajectory(rng, [(2, 0)])
    batch = functools.partial(packing.episode_batch, [two, one], max_turns=3)
    length = rewards.own("length", lambda t: len(t.turns), weight=0.5)
    out = length.apply(batch(needs=length.facts))
    np.testing.assert_allclose(out, [[0, 1.0, 0], [0.5, 0, 0]])
    each = rewards.own("each", lambda t: [len(turn.tokens) for turn in t.turns])
    np.testing.assert_allclose(each.apply(batch(needs=each.facts)), [[3, 5, 0], [2, 0, 0]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "one for each of the 2 turns .* problem 'p', got 1"),
        (float("nan"), "must be finite, got nan for a trajectory of problem 'p'"),
    ],
)
def test_own_reward_that_is_no_reward_is_an_error(value, message):
    trajectory = make_trajectory(np.random.default_rng(0), [(3, 1), (5, 0)])
    part = rewards.own("mine", lambda t: value)
    with pytest.raises(ValueError, match=f"reward 'mine' .*{message}"):
        packing.episode_batch([trajectory], max_turns=2, needs=part.facts)


def lengths(texts):
    return [[len(text), 1.0] for text in texts]


def test_embedding_by_a_function_of_texts_sees_the_code():
    rng = np.random.default_rng(0)
    made = [make_trajectory(rng, [(3, 0)], success=s) for s in (True, False, False)]
    code = ["abc", "abc", None]
    made = [
        dataclasses.replace(t, turns=(dataclasses.replace(t.turns[0], codes=(c,) if c else ()),))
        for t, c in zip(made, code, strict=True)
    ]
    part = rewards.resemblance(0.5, embed=lengths)
    batch = jax.device_put(packing.episode_batch(made, max_turns=1, needs=part.facts))
    np.testing.assert_allclose(part.apply(batch)[:, 0], [0.0, 0.5, 0.0], atol=1e-6)
    broken = rewards.resemblance(embed=lambda texts: [1.0])
    with pytest.raises(ValueError, match=r"finite array \[3, D\] for 3 texts, got shape \(1,\)"):
        packing.episode_batch(made, max_turns=1, needs=broken.facts)


def test_fact_that_was_not_gathered_is_named():
    batch = episodes([True] * 3, jnp.zeros((3, 3), bool))
    with pytest.raises(ValueError, match=r"needs the fact 'code', the episodes hold none; pass"):
        rewards.resemblance().apply(batch)


def shaped(success, included, groups, similarity, weight=0.5):
    return rewards.shaped_outcomes(
        jnp.asarray(success, bool),
        jnp.asarray(included, bool),
        jnp.asarray(groups, jnp.int32),
        jnp.asarray(similarity, jnp.float32),
        weight=weight,
    )


def test_shaped_outcomes_of_hand_numbers_average_over_the_successes():
    # alpha/|P| (.8 + .4) with |P| = 2: dividing twice would give .15.
    similarity = np.eye(3)
    similarity[2, :2] = similarity[:2, 2] = [0.8, 0.4]
    out = shaped([True, True, False], [True] * 3, [0] * 3, similarity)
    np.testing.assert_allclose(out, [1.0, 1.0, 0.3], rtol=1e-6)


def test_shaped_outcomes_without_a_success_in_the_group_are_zero():
    out = shaped([True, False, False], [True] * 3, [0, 1, 1], np.ones((3, 3)))
    chex.assert_trees_all_equal(out, jnp.array([1.0, 0.0, 0.0]))


def test_shaped_outcome_of_a_failure_identical_to_every_success_is_the_weight():
    # Cosines above one by rounding lift no failure above the weight.
    for cosine in (1.0, 1.000001):
        out = shaped([True, True, False], [True] * 3, [0] * 3, np.full((3, 3), cosine), 0.3)
        chex.assert_trees_all_equal(out, jnp.array([1.0, 1.0, 0.3]))


def test_shaped_outcomes_of_negative_similarities_take_nothing_away():
    # One negative cosine counts as 0 in the mean over P and cannot cancel another success.
    similarity = np.eye(3)
    similarity[2, :2] = [-0.9, 0.6]
    out = shaped([True, True, False], [True] * 3, [0] * 3, similarity)
    np.testing.assert_allclose(out[2], 0.15, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_shaped_outcomes_of_random_groups_match_the_reference(weight, compiled):
    rng = np.random.default_rng(2)
    success, included = rng.random(24) < 0.4, rng.random(24) < 0.8
    groups, similarity = rng.integers(0, 5, 24), rng.uniform(-0.5, 1.0, (24, 24))

    def call(similarity):
        return shaped(success, included, groups, similarity, weight)

    out = (jax.jit(call) if compiled else call)(jnp.asarray(similarity, jnp.float32))
    expected = reference.shaped_outcomes(success, included, groups, similarity, weight)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    assert np.all(out[included & ~success] <= weight)


def test_shaped_outcomes_with_nan_for_excluded_trajectories_leak_nothing():
    # An excluded success gives no credit and an excluded failure gets none.
    similarity = np.full((4, 4), 0.6)
    similarity[2:] = similarity[:, 2:] = np.nan
    out = shaped([True, False, True, False], [True, True, False, False], [0] * 4, similarity)
    np.testing.assert_allclose(out, [1.0, 0.3, 0.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("floor, expected", [(0.0, 0.15), (-1.0, -0.075), (-0.5, 0.025)])
def test_shaped_outcomes_clip_negative_similarities_at_the_floor(floor, expected):
    # α / |P| Σ max(cos, floor), α = .5, cosines −.9 and .6: the paper leaves the choice open.
    similarity = np.eye(3)
    similarity[2, :2] = [-0.9, 0.6]
    out = rewards.shaped_outcomes(
        jnp.array([True, True, False]),
        jnp.ones(3, bool),
        jnp.zeros(3, jnp.int32),
        jnp.asarray(similarity, jnp.float32),
        weight=0.5,
        floor=floor,
    )
    np.testing.assert_allclose(out, [1.0, 1.0, expected], atol=1e-7)
