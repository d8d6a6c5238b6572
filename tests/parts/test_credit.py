"""From episodes to the credit of turns."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.functions import make_algorithm
from configs.schema import AlgorithmConfig
from gtpo_jax import advantages, credit
from gtpo_jax.types import EpisodeBatch
from tests import reference

CODE = [b"print(12*7)", b"print(12*7)", b"", b"x=1;print(x+5)", b"print(12*7)", b"print(9)"]
TURNS = [2, 3, 1, 2, 2, 1]
GROUPS = [0, 0, 0, 1, 1, 0]
SUCCESS = [True, False, False, True, False, True]
INCLUDED = [True, True, True, True, True, False]


def episodes() -> EpisodeBatch:
    """Two groups; the last trajectory is a success of group 0 that is excluded."""
    code = np.zeros((6, 32), np.int32)
    for row, text in enumerate(CODE):
        code[row, : len(text)] = np.frombuffer(text, np.uint8)
    violations = np.zeros((6, 3), bool)
    violations[1, 0] = violations[2, 0] = violations[0, 2] = True  # the last is no turn
    return EpisodeBatch(
        group_ids=jnp.array(GROUPS, jnp.int32),
        included=jnp.array(INCLUDED),
        success=jnp.array(SUCCESS),
        turn_mask=jnp.arange(3) < jnp.array(TURNS)[:, None],
        violations=jnp.asarray(violations),
        code=jnp.asarray(code),
        code_lengths=jnp.array([len(text) for text in CODE], jnp.int32),
    )


@jax.jit
def gtpo(batch: EpisodeBatch) -> credit.TurnCredit:
    return credit.assign(batch, credit.gtpo_turn_rewards, advantages.gtpo_advantages)


@jax.jit
def grpo(batch: EpisodeBatch) -> credit.TurnCredit:
    return credit.assign(batch, credit.grpo_turn_rewards, advantages.grpo_advantages)


def gtpo_rewards(**options: float) -> jax.Array:
    return jax.jit(functools.partial(credit.gtpo_turn_rewards, **options))(episodes())


def test_gtpo_credit_of_two_groups_matches_hand_rewards_and_the_reference():
    result = gtpo(episodes())
    # Row 1 fails with the code of the only included success: half a point. Row 2 wrote no code.
    rewards = [[0.0, 1.0], [-0.1, 0.0, 0.5], [-0.1], [0.0, 1.0], None, [0.0]]
    for row in (0, 1, 2, 3, 5):
        np.testing.assert_allclose(result.rewards[row, : TURNS[row]], rewards[row], atol=1e-6)
    shaped = float(result.rewards[4, 1])
    assert 0.0 < shaped < 0.5
    rewards[4] = [0.0, shaped]
    expected, _ = reference.padded(reference.gtpo(rewards, GROUPS, INCLUDED, discount=0.9), 3)
    chex.assert_trees_all_close(result.advantages, expected, atol=1e-5)
    chex.assert_trees_all_equal(result.advantages[5], jnp.zeros(3))


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (credit.gtpo_reward_parts, credit.gtpo_turn_rewards),
        (credit.grpo_reward_parts, credit.grpo_turn_rewards),
    ],
    ids=["gtpo", "grpo"],
)
def test_parts_of_rewards_sum_to_them_exactly(parts, whole):
    batch = episodes()
    broken = dataclasses.replace(batch, violations=batch.violations.at[0, 0].set(True))
    parts, whole = jax.jit(parts), jax.jit(whole)
    for case in (batch, broken):
        named = parts(case)
        chex.assert_trees_all_equal(sum(named.values()), whole(case))
        result = credit.assign(case, parts, advantages.gtpo_advantages)
        chex.assert_trees_all_equal(result.rewards, sum(result.parts.values()))
        same = credit.assign(case, whole, advantages.gtpo_advantages)
        chex.assert_trees_all_equal(result.advantages, same.advantages)
        assert same.parts == {} and set(result.parts) == set(named)


def test_parts_say_where_the_rewards_of_gtpo_come_from():
    weights = {"shaping": 0.5, "format_penalty": 0.1}
    parts = jax.jit(functools.partial(credit.gtpo_reward_parts, **weights))(episodes())
    success = np.array(SUCCESS) & np.array(INCLUDED)
    last = np.arange(3) == np.array(TURNS)[:, None] - 1
    np.testing.assert_array_equal(parts["outcome"], last & success[:, None])
    assert np.all((parts["partial"] > 0) == (last & np.array([0, 1, 0, 0, 1, 0], bool)[:, None]))
    broken = np.zeros((6, 3))
    broken[[1, 2], 0] = -0.1
    np.testing.assert_allclose(parts["format"], broken, atol=1e-7)


def test_parts_of_grpo_name_the_success_that_the_format_cost():
    batch = episodes()
    broken = dataclasses.replace(batch, violations=batch.violations.at[0, 0].set(True))
    parts = credit.grpo_reward_parts(broken)
    np.testing.assert_array_equal(parts["outcome"].sum(axis=1), SUCCESS)
    np.testing.assert_array_equal(parts["format"].sum(axis=1), [-1, 0, 0, 0, 0, 0])


def test_returns_are_what_is_still_to_come():
    batch = episodes()
    plain = gtpo(batch)
    rewards = np.where(batch.turn_mask, plain.rewards, 0)
    to_come = np.where(batch.turn_mask, np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1], 0)
    np.testing.assert_allclose(plain.returns, to_come, atol=1e-6)


@pytest.mark.parametrize("name", ["gtpo", "grpo"])
def test_recorded_returns_are_those_that_advantages_are_made_of(name):
    algorithm = make_algorithm(AlgorithmConfig(name=name))
    batch = episodes()
    functions = (algorithm.turn_rewards, algorithm.turn_advantages, algorithm.turn_returns)
    result = jax.jit(lambda batch: credit.assign(batch, *functions))(batch)
    # Normalized as the algorithm does, with no discount left to apply.
    mask = batch.turn_mask & batch.included[:, None]
    per = mask if name == "gtpo" else mask & (jnp.arange(3) == 0)
    expected = advantages.normalize_within_groups(result.returns, per, batch.group_ids)
    if name == "grpo":
        expected = jnp.where(batch.turn_mask, expected[:, :1], 0.0)
    chex.assert_trees_all_close(result.advantages, expected, atol=1e-6)


def test_gtpo_credit_without_shaping_leaves_failures_their_penalties_only():
    rewards = gtpo_rewards(shaping=0.0, format_penalty=0.2)
    expected = [[0, 1, 0], [-0.2, 0, 0], [-0.2, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(rewards, expected, atol=1e-7)


def test_gtpo_credit_of_a_failure_never_reaches_that_of_a_success():
    rewards = gtpo_rewards(shaping=0.99)
    totals = np.asarray(jnp.sum(rewards, axis=1))
    assert totals[1] > 0.8
    assert max(totals[[1, 2, 4]]) < min(totals[[0, 3]])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_grpo_credit_is_one_value_for_all_turns_of_a_trajectory(compiled):
    result = (grpo if compiled else grpo.__wrapped__)(episodes())
    rewards = [[0.0, 1.0], [0.0, 0.0, 0.0], [0.0], [0.0, 1.0], [0.0, 0.0], [1.0]]
    expected, _ = reference.padded(rewards, 3)
    chex.assert_trees_all_equal(result.rewards, expected)
    target, _ = reference.padded(reference.grpo(rewards, GROUPS, INCLUDED), 3)
    chex.assert_trees_all_close(result.advantages, target, atol=1e-5)


def test_grpo_credit_of_a_success_that_broke_the_format_is_zero():
    batch = episodes()
    broken = dataclasses.replace(batch, violations=batch.violations.at[0, 0].set(True))
    chex.assert_trees_all_equal(credit.grpo_turn_rewards(broken)[0], jnp.zeros(3))


@pytest.mark.parametrize("assign", [gtpo, grpo], ids=["gtpo", "grpo"])
def test_credit_does_not_depend_on_the_facts_of_an_excluded_trajectory(assign):
    # T-39
    batch = episodes()
    other = dataclasses.replace(
        batch,
        success=batch.success.at[5].set(False),
        violations=batch.violations.at[5, 0].set(True),
        code_lengths=batch.code_lengths.at[5].set(0),
    )
    chex.assert_trees_all_equal(assign(batch).advantages, assign(other).advantages)


@pytest.mark.parametrize("assign", [gtpo, grpo], ids=["gtpo", "grpo"])
def test_credit_with_more_turn_slots_and_code_padding_is_unchanged(assign):
    # T-50
    batch = episodes()
    more = ((0, 0), (0, 4))
    wide = dataclasses.replace(
        batch,
        turn_mask=jnp.pad(batch.turn_mask, more),
        violations=jnp.pad(batch.violations, more, constant_values=True),
        code=jnp.pad(batch.code, more, constant_values=97),
    )
    narrow, padded = assign(batch), assign(wide)
    chex.assert_trees_all_equal(padded.advantages[:, 3:], jnp.zeros((6, 4)))
    chex.assert_trees_all_close(padded.rewards[:, :3], narrow.rewards, rtol=1e-6)
    chex.assert_trees_all_close(padded.advantages[:, :3], narrow.advantages, atol=1e-6)


def test_credit_passes_the_functions_it_is_given_what_they_need():
    batch = episodes()
    result = credit.assign(
        batch,
        lambda e: e.turn_mask.astype(jnp.float32),
        lambda rewards, mask, groups, included: jnp.where(
            mask & included[:, None], rewards * groups[:, None], -1.0
        ),
    )
    expected = jnp.where(batch.turn_mask, jnp.array(GROUPS, jnp.float32)[:, None], -1.0)
    chex.assert_trees_all_equal(result.advantages, expected.at[5].set(-1.0))
