"""From episodes to the credit of turns, by a method."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit, facts
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
        facts={
            "code": facts.Code(
                jnp.asarray(code), jnp.array([len(text) for text in CODE], jnp.int32)
            )
        },
    )


def assigned(method: methods.Method):
    """Rewards and advantages of a method, as a function of episodes."""
    return lambda batch: methods.assign(method, method.credit.init(), batch)[1]


gtpo, grpo = jax.jit(assigned(methods.gtpo())), jax.jit(assigned(methods.grpo()))


def gtpo_rewards(**options: float) -> jax.Array:
    return jax.jit(assigned(methods.gtpo(**options)))(episodes()).rewards


def with_broken_success(batch: EpisodeBatch) -> EpisodeBatch:
    return dataclasses.replace(batch, violations=batch.violations.at[0, 0].set(True))


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


@pytest.mark.parametrize("assign", [gtpo, grpo], ids=["gtpo", "grpo"])
def test_parts_of_rewards_sum_to_them_exactly(assign):
    for case in (episodes(), with_broken_success(episodes())):
        result = assign(case)
        chex.assert_trees_all_equal(result.rewards, sum(result.parts.values()))
        assert len(result.parts) > 1


def test_parts_say_where_the_rewards_of_gtpo_come_from():
    parts = gtpo(episodes()).parts
    success = np.array(SUCCESS) & np.array(INCLUDED)
    last = np.arange(3) == np.array(TURNS)[:, None] - 1
    np.testing.assert_array_equal(parts["outcome"], last & success[:, None])
    assert np.all((parts["partial"] > 0) == (last & np.array([0, 1, 0, 0, 1, 0], bool)[:, None]))
    broken = np.zeros((6, 3))
    broken[[1, 2], 0] = -0.1
    np.testing.assert_allclose(parts["format"], broken, atol=1e-7)


def test_parts_of_grpo_name_the_success_that_the_format_cost():
    parts = grpo(with_broken_success(episodes())).parts
    known = np.array(SUCCESS) & np.array(INCLUDED)
    np.testing.assert_array_equal(parts["outcome"].sum(axis=1), known)
    np.testing.assert_array_equal(parts["format"].sum(axis=1), [-1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(("assign", "discount"), [(gtpo, 0.9), (grpo, None)], ids=["gtpo", "grpo"])
def test_recorded_returns_are_those_that_advantages_are_made_of(assign, discount):
    batch = episodes()
    result = assign(batch)
    rows = [list(np.asarray(result.rewards[i, : TURNS[i]])) for i in range(len(TURNS))]
    if discount is None:
        expected = [[sum(row)] * len(row) for row in rows]
    else:
        expected = reference.returns(rows, discount)
    returns, _ = reference.padded(expected, 3)
    chex.assert_trees_all_close(result.links["return"], returns, atol=1e-6)


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
    rewards = [[0.0, 1.0], [0.0, 0.0, 0.0], [0.0], [0.0, 1.0], [0.0, 0.0], [0.0]]
    expected, _ = reference.padded(rewards, 3)
    chex.assert_trees_all_equal(result.rewards, expected)
    target, _ = reference.padded(reference.grpo(rewards, GROUPS, INCLUDED), 3)
    chex.assert_trees_all_close(result.advantages, target, atol=1e-5)


def test_grpo_credit_of_a_success_that_broke_the_format_is_zero():
    batch = episodes()
    broken = dataclasses.replace(batch, violations=batch.violations.at[0, 0].set(True))
    chex.assert_trees_all_equal(grpo(broken).rewards[0], jnp.zeros(3))


@pytest.mark.parametrize("assign", [gtpo, grpo], ids=["gtpo", "grpo"])
def test_credit_does_not_depend_on_the_facts_of_an_excluded_trajectory(assign):
    batch = episodes()
    lengths = batch.facts["code"].lengths
    other = dataclasses.replace(
        batch,
        success=batch.success.at[5].set(False),
        violations=batch.violations.at[5, 0].set(True),
        facts={"code": batch.facts["code"]._replace(lengths=lengths.at[5].set(0))},
    )
    chex.assert_trees_all_equal(assign(batch).advantages, assign(other).advantages)


@pytest.mark.parametrize("assign", [gtpo, grpo], ids=["gtpo", "grpo"])
def test_credit_with_more_turn_slots_and_code_padding_is_unchanged(assign):
    batch = episodes()
    code = batch.facts["code"]
    more = ((0, 0), (0, 4))
    wide = dataclasses.replace(
        batch,
        turn_mask=jnp.pad(batch.turn_mask, more),
        violations=jnp.pad(batch.violations, more, constant_values=True),
        facts={"code": code._replace(bytes=jnp.pad(code.bytes, more, constant_values=97))},
    )
    narrow, padded = assign(batch), assign(wide)
    chex.assert_trees_all_equal(padded.advantages[:, 3:], jnp.zeros((6, 4)))
    chex.assert_trees_all_close(padded.rewards[:, :3], narrow.rewards, rtol=1e-6)
    chex.assert_trees_all_close(padded.advantages[:, :3], narrow.advantages, atol=1e-6)


def test_credit_with_state_passes_it_on():
    # A running mean of what was seen, as the baseline: two batches, the second against the first.
    def apply(state, values, batch):
        mean, count = state
        return ((mean * count + jnp.mean(values)) / (count + 1), count + 1), values - mean

    running = credit.Credit(lambda: (jnp.zeros(()), jnp.zeros(())), apply)
    method = methods.grpo()._replace(credit=credit.chain(credit.total(), running))
    state = method.credit.init()
    step = jax.jit(lambda state, batch: methods.assign(method, state, batch))
    state, first = step(state, episodes())
    state, second = step(state, episodes())
    kept = np.asarray(episodes().turn_mask & episodes().included[:, None])
    mean = float(jnp.mean(first.links["return"]))
    np.testing.assert_allclose(first.advantages[kept], first.links["return"][kept], atol=1e-6)
    np.testing.assert_allclose(
        second.advantages[kept], first.links["return"][kept] - mean, atol=1e-6
    )
    assert float(state[1][1]) == 2.0


def test_credit_of_rows_that_a_link_forgets_to_mask_is_zero():
    careless = credit.stateless(lambda values, batch: values + 1.0)
    method = methods.grpo()._replace(credit=careless)
    result = assigned(method)(episodes())
    assert not np.any(result.advantages[5]) and np.all(result.advantages[0, :2] >= 1)
    assert not np.any(np.where(episodes().turn_mask, 0, result.advantages))
