"""Hints in the laboratory: which row is replaced, and that rare successes are then learned."""

import functools

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


PLAYS = {
    "half": [IDLE, IDLE, RIGHT, ANSWER],
    "right": [RIGHT, RIGHT, RIGHT, ANSWER],
    "never": [IDLE] * 4,
}


@functools.cache
def sampled():
    """Groups of policies that take one action in each state: after 0, 1, 2 and 3 right ones."""
    policy, problems = table(), jnp.zeros(2, jnp.int32)
    shape = policy.init(WORLD, jax.random.key(0))

    def play(favorites):
        logits = 50.0 * jax.nn.one_hot(favorites, WORLD.actions)
        params = jax.tree.map(lambda _: logits, shape)
        return hints.sample(
            WORLD, BEGIN, policy, params, jax.random.key(1), problems, size=3, levels=3
        )

    found = jax.jit(jax.vmap(play))(jnp.array(list(PLAYS.values())))
    return {
        name: jax.tree.map(lambda x, n=n: np.asarray(x[n]), found) for n, name in enumerate(PLAYS)
    }


def test_a_hint_begins_after_so_many_right_actions():
    for level in (0, 3):
        assert int(BEGIN(jnp.int32(0), jnp.int32(level))["done"]) == level


def test_smallest_hint_that_succeeds_replaces_the_first_row():
    plain, rows = sampled()["half"]
    assert not plain.judgment.success.any()
    assert rows.judgment.success.tolist() == [True, False, False] * 2
    assert rows.observations[0, 0] == 2 and rows.observations[1, 0] == 0
    assert rows.problems.tolist() == [0] * 6


@pytest.mark.parametrize("name", ["right", "never"])
def test_groups_stay_where_one_succeeds_or_no_hint_helps(name):
    plain, rows = sampled()[name]
    np.testing.assert_array_equal(plain.observations, rows.observations)
    np.testing.assert_array_equal(plain.judgment.success, rows.judgment.success)


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
