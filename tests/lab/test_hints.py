"""Hints in the laboratory: which row is replaced, and that rare successes are then learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.lab import hints
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.policies import table
from gtpo_jax.lab.worlds.chain import ANSWER, IDLE, RIGHT, chain

WORLD = chain(needed=3, turns=4)
BEGIN = hints.after_steps(WORLD, RIGHT)


def sampled(favorites, *, levels=3):
    """Groups of a policy that takes one action in each state: after 0, 1, 2 and 3 right ones."""
    logits = 50.0 * jax.nn.one_hot(jnp.array(favorites), WORLD.actions)
    policy = table()
    params = jax.tree.map(lambda _: logits, policy.init(WORLD, jax.random.key(0)))
    problems = jnp.zeros(2, jnp.int32)
    return hints.sample(
        WORLD, BEGIN, policy, params, jax.random.key(1), problems, size=3, levels=levels
    )


def test_a_hint_begins_after_so_many_right_actions():
    for level in range(4):
        assert int(BEGIN(jnp.int32(0), jnp.int32(level))["done"]) == level


def test_smallest_hint_that_succeeds_replaces_the_first_row():
    plain, rows = sampled([IDLE, IDLE, RIGHT, ANSWER])
    assert not plain.judgment.success.any()
    assert rows.judgment.success.tolist() == [True, False, False] * 2
    assert rows.observations[0, 0] == 2 and rows.observations[1, 0] == 0
    assert rows.problems.tolist() == [0] * 6


@pytest.mark.parametrize("favorites", [[RIGHT, RIGHT, RIGHT, ANSWER], [IDLE] * 4])
def test_groups_stay_where_one_succeeds_or_no_hint_helps(favorites):
    plain, rows = sampled(favorites)
    np.testing.assert_array_equal(plain.observations, rows.observations)
    np.testing.assert_array_equal(plain.judgment.success, rows.judgment.success)


def test_without_levels_there_are_no_hints():
    plain, rows = sampled([IDLE, IDLE, RIGHT, ANSWER], levels=0)
    np.testing.assert_array_equal(plain.actions, rows.actions)


@pytest.mark.long
def test_rare_successes_are_learned_with_hints_alone():
    world = chain(needed=6, turns=7)
    begin = hints.after_steps(world, RIGHT)
    found = {
        levels: hints.learn(
            world,
            begin,
            methods.grpo(),
            seeds=range(8),
            levels=levels,
            settings=Settings(updates=120),
        ).solved[:, -1]
        for levels in (0, 6)
    }
    assert float(jnp.mean(found[0])) < 0.5 and float(jnp.min(found[6])) > 0.8
