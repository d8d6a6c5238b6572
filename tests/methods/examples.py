"""Small episodes with numbers that can be checked by hand, and what a method makes of them."""

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import credit
from gtpo_jax.types import EpisodeBatch


def episodes(success, turns=None, *, group_ids=None, **facts):
    """Included trajectories without violations; one turn each unless `turns` counts them."""
    count = len(success)
    turns = np.ones(count, int) if turns is None else np.asarray(turns)
    mask = np.arange(turns.max()) < turns[:, None]
    return EpisodeBatch(
        group_ids=jnp.zeros(count, jnp.int32) if group_ids is None else jnp.asarray(group_ids),
        included=jnp.ones(count, bool),
        success=jnp.asarray(success, bool),
        turn_mask=jnp.asarray(mask),
        violations=jnp.zeros(mask.shape, bool),
        facts={name: jnp.asarray(value) for name, value in facts.items()},
    )


def advantages(method, batch):
    assign = jax.jit(lambda batch: methods.assign(method, method.credit.init(), batch)[1])
    return np.asarray(assign(batch).advantages)


def values(link, batch, start):
    """The result of a credit on given values."""
    start = jnp.broadcast_to(jnp.asarray(start, jnp.float32), batch.turn_mask.shape)
    return np.asarray(credit.trace(link, link.init(), start, batch).advantages)


def scores(numbers):
    """`(x − mean) / std` with the deviation of a population."""
    return (np.array(numbers) - np.mean(numbers)) / np.std(numbers)


def exactly(actual, expected, atol=1e-4):
    np.testing.assert_allclose(actual, expected, atol=atol)


def plain():
    return methods.grpo(eps=0.0)
