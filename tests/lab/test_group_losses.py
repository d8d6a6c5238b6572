"""Losses over groups in the laboratory: they learn, and their facts are those of the table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.lab import episodes, history, learning, samplers
from gtpo_jax.lab.policies import table
from gtpo_jax.lab.worlds import chain
from gtpo_jax.parts import facts

WORLD = chain(needed=1, turns=3)
SETTINGS = learning.Settings(updates=12, groups=4, size=4, learning_rate=0.2, epochs=2)

LEARN = {
    "disco": lambda: methods.disco(delta=0.05, beta=1.0),
    "reg_grpo": methods.reg_grpo,
    "p3o": lambda: methods.p3o(clipping="joint"),
    "dpo": methods.dpo,
    "oorl": methods.oorl,
    "nthr": lambda: methods.nthr()(methods.grpo()),
    "capo": lambda: methods.capo(learning_rate=0.1, most_policy=0.01, most_objective=0.3)(
        methods.grpo()
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LEARN)
def test_methods_over_groups_learn(name):
    found = learning.learn(WORLD, LEARN[name](), seeds=range(4), settings=SETTINGS)
    solved = np.asarray(found.solved).mean(axis=0)
    assert solved[0] < 0.3 and solved[-1] > 0.7


@pytest.mark.long
@pytest.mark.parametrize("name", ["reg_grpo", "p3o", "dpo"])
def test_their_mirrors_do_not(name):
    settings = dataclasses.replace(SETTINGS, sign=-1.0)
    found = learning.learn(WORLD, LEARN[name](), seeds=range(4), settings=settings)
    assert np.asarray(found.solved)[:, -1].mean() < 0.2


def test_likeness_is_that_of_pairs_of_tokens_of_the_table():
    params = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    groups = np.repeat(np.arange(3), 4).astype(np.int32)

    @jax.jit
    def measured(params):
        rows = history.sample(WORLD, table(), params, jax.random.key(0), jnp.zeros(12, jnp.int32))
        sampler = samplers.Sampler(params, jnp.int32(0))
        context = samplers.make_context(
            WORLD, table(), sampler, rows, jnp.int32(0), learner=params, first=params
        )
        batch = episodes.episode_batch(context, groups, [facts.TOKEN_LIKENESS])
        return rows, batch.success, batch.facts[facts.TOKEN_LIKENESS.name]

    rows, success, found = jax.device_get(measured(params))
    p = np.asarray(jax.nn.softmax(params, axis=-1), np.float64)
    tokens = [
        (i, t, rows.observations[i, t], np.eye(4)[rows.actions[i, t]] - p[rows.observations[i, t]])
        for i, t in np.argwhere(rows.alive)
    ]
    for i, t, seen, error in tokens:
        expected = sum(
            error @ other
            for j, _, place, other in tokens
            if groups[j] == groups[i] and success[j] and place == seen
        )
        np.testing.assert_allclose(found[i, t], expected, atol=1e-5)
    assert success.any() and np.ptp(found) > 0.1
