"""The map between tokens and turns."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import turns


def test_turn_ids_of_adjacent_turns_stay_two_turns():
    # An empty observation leaves no gap in the mask between turns 0 and 1.
    mask = jnp.array([[0, 1, 1, 1, 0, 1, 0]], bool)
    starts = jnp.array([[0, 1, 0, 1, 0, 1, 0]], bool)
    ids = turns.turn_ids_from_starts(mask, starts)
    chex.assert_trees_all_equal(ids, jnp.array([[-1, 0, 0, 1, -1, 2, -1]]))


def test_turn_ids_of_a_start_outside_the_mask_do_not_count_it():
    mask = jnp.array([[0, 0, 1, 1], [0, 0, 0, 0]], bool)
    starts = jnp.array([[1, 0, 1, 0], [1, 0, 0, 1]], bool)
    ids = turns.turn_ids_from_starts(mask, starts)
    chex.assert_trees_all_equal(ids, jnp.array([[-1, -1, 0, 0], [-1, -1, -1, -1]]))


def test_turn_ids_of_random_dialogues_match_a_walk_over_turns():
    rng = np.random.default_rng(0)
    width = 60
    mask, starts = np.zeros((20, width), bool), np.zeros((20, width), bool)
    expected = np.full((20, width), -1)
    for row in range(20):
        at = int(rng.integers(0, 5))
        for turn in range(int(rng.integers(0, 6))):
            length = int(rng.integers(1, 5))
            starts[row, at] = True
            mask[row, at : at + length] = True
            expected[row, at : at + length] = turn
            at += length + int(rng.integers(0, 3))
    ids = jax.jit(turns.turn_ids_from_starts)(jnp.asarray(mask), jnp.asarray(starts))
    np.testing.assert_array_equal(ids, expected)
    turns.check_turn_ids(ids, jnp.asarray(mask))


def test_turn_mask_from_counts_includes_a_trajectory_without_turns():
    mask = turns.turn_mask_from_counts(jnp.array([2, 0, 3]), 3)
    expected = jnp.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    chex.assert_trees_all_equal(mask, expected)


def test_last_turns_marks_one_turn_per_trajectory_and_none_without_turns():
    mask = turns.turn_mask_from_counts(jnp.array([2, 0, 3, 1]), 3)
    expected = jnp.array([[0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]], bool)
    chex.assert_trees_all_equal(turns.last_turns(mask), expected)
    chex.assert_trees_all_equal(turns.last_turns(mask[:, :1]), mask[:, :1])


def test_broadcast_to_tokens_of_a_packed_row_reads_each_tokens_own_turn():
    values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    trajectory_ids = jnp.array([[1, 1, 1, 0, 0, 0, -1]])
    turn_ids = jnp.array([[-1, 0, 1, -1, 1, 1, -1]])
    out = turns.broadcast_to_tokens(values, trajectory_ids, turn_ids)
    chex.assert_trees_all_equal(out, jnp.array([[0.0, 3.0, 4.0, 0.0, 2.0, 2.0, 0.0]]))
    stacked = turns.broadcast_to_tokens(values, trajectory_ids[None], turn_ids[None])
    chex.assert_trees_all_equal(stacked, out[None])


def test_broadcast_to_tokens_with_nan_in_other_turns_leaks_nothing():
    # Index −1 must not fetch the NaN of turn 0 or of the last turn.
    values = jnp.array([[jnp.nan, 2.0, jnp.nan]])
    out = turns.broadcast_to_tokens(values, jnp.array([[0, 0, -1]]), jnp.array([[-1, 1, -1]]))
    chex.assert_trees_all_equal(out, jnp.array([[0.0, 2.0, 0.0]]))


@pytest.mark.parametrize("position", [1, 2, 3])
def test_sum_tokens_by_turn_counts_a_reward_once_wherever_in_the_turn_it_sits(position):
    trajectory_ids = jnp.zeros((1, 6), jnp.int32)
    turn_ids = jnp.array([[-1, 0, 0, 0, -1, 1]])
    rewards = jnp.zeros((1, 6)).at[0, position].set(0.25).at[0, 5].set(1.0)
    total = turns.sum_tokens_by_turn(rewards, trajectory_ids, turn_ids, trajectories=1, max_turns=3)
    chex.assert_trees_all_equal(total, jnp.array([[0.25, 1.0, 0.0]]))


def test_sum_tokens_by_turn_matches_a_loop_and_ignores_nan_outside_turns():
    rng = np.random.default_rng(0)
    trajectory_ids = rng.integers(-1, 3, (4, 30))
    turn_ids = rng.integers(-1, 4, (4, 30))
    values = rng.normal(size=(4, 30)).astype(np.float32)
    expected = np.zeros((3, 4))
    for b in range(4):
        for t in range(30):
            if trajectory_ids[b, t] >= 0 and turn_ids[b, t] >= 0:
                expected[trajectory_ids[b, t], turn_ids[b, t]] += float(values[b, t])
            else:
                values[b, t] = np.nan
    total = turns.sum_tokens_by_turn(
        jnp.asarray(values),
        jnp.asarray(trajectory_ids),
        jnp.asarray(turn_ids),
        trajectories=3,
        max_turns=4,
    )
    # Sums of about ten float32 values of order one.
    np.testing.assert_allclose(total, expected, atol=2e-6)


@pytest.mark.parametrize("turn_ids", [[[0, 0, -1]], [[-1, 0, 0]]])
def test_check_turn_ids_with_a_token_on_one_side_only_is_refused(turn_ids):
    with pytest.raises(ValueError, match="turn_ids"):
        turns.check_turn_ids(jnp.array(turn_ids), jnp.array([[False, True, False]]))


def test_turn_ids_from_spans_agree_with_those_from_starts():
    # Turns 0 and 1 of the second row touch, and stay two turns.
    starts = jnp.array([[2, 5, 0], [1, 3, 5]])
    ends = jnp.array([[4, 6, 0], [3, 4, 7]])
    turn_mask = turns.turn_mask_from_counts(jnp.array([2, 3]), max_turns=3)
    ids = turns.turn_ids_from_spans(starts, ends, turn_mask, 8)
    assert ids.tolist() == [[-1, -1, 0, 0, -1, 1, -1, -1], [-1, 0, 0, 1, -1, 2, 2, -1]]
    first = (jnp.arange(8) == starts[..., None]) & turn_mask[..., None]
    np.testing.assert_array_equal(ids, turns.turn_ids_from_starts(ids >= 0, jnp.any(first, axis=1)))


def test_check_token_values_with_a_reward_on_tool_output_is_refused():
    # Dropped in silence it would be lost.
    turn_ids = jnp.array([[-1, 0, 0, -1, 1]])
    turns.check_token_values(jnp.array([[0.0, 0.0, 0.1, 0.0, 1.0]]), turn_ids)
    with pytest.raises(ValueError, match="1 tokens of no turn"):
        turns.check_token_values(jnp.array([[0.0, 0.0, 0.0, 0.5, 1.0]]), turn_ids)
