"""Rewards of turns."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import rewards
from tests import reference

MASK = jnp.array([[True, True, False], [True, False, False], [False, False, False]])


def test_outcome_stands_once_on_the_last_turn_and_nowhere_without_turns():
    # T-33
    out = rewards.outcome_rewards(jnp.array([1.0, 0.3, 0.7]), MASK)
    chex.assert_trees_all_equal(out, jnp.array([[0.0, 1.0, 0.0], [0.3, 0.0, 0.0], [0.0] * 3]))


def test_format_penalty_falls_on_each_violating_turn_that_exists():
    violations = jnp.array([[True, True, True], [False, True, True], [True, True, True]])
    out = rewards.format_rewards(violations, MASK, penalty=0.25)
    chex.assert_trees_all_equal(out, jnp.array([[-0.25, -0.25, 0.0], [0.0] * 3, [0.0] * 3]))


def test_gtpo_rewards_are_the_sum_of_accuracy_and_format():
    violations = jnp.array([[True, True, False], [False, True, False], [False] * 3])
    out = rewards.gtpo_rewards(jnp.array([1.0, 0.0, 1.0]), violations, MASK)
    chex.assert_trees_all_close(out, jnp.array([[-0.1, 0.9, 0.0], [0.0] * 3, [0.0] * 3]))


@pytest.mark.parametrize(
    "success, violation, expected",
    [(True, False, 1.0), (True, True, 0.0), (False, False, 0.0), (False, True, 0.0)],
)
def test_grpo_reward_is_the_minimum_of_accuracy_and_format(success, violation, expected):
    mask = jnp.array([[True, True, False]])
    violations = jnp.array([[violation, False, True]])  # the last is no turn at all
    out = rewards.grpo_rewards(jnp.array([success]), violations, mask)
    chex.assert_trees_all_equal(out, jnp.array([[0.0, expected, 0.0]]))


def test_outcome_of_nan_stays_in_its_own_row_and_turn():
    # T-42
    out = rewards.gtpo_rewards(jnp.array([jnp.nan, 1.0, jnp.nan]), jnp.zeros((3, 3), bool), MASK)
    chex.assert_trees_all_equal(
        out, jnp.array([[0.0, jnp.nan, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    )


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
    # T-39: an excluded success gives no credit and an excluded failure gets none.
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
