"""Sets of turns with equal ids, such as all turns that begin in the same state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gtpo_jax.maths import masking
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.sets import Moments, Set
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


def dense_ids(
    ids: Int[Array, "M K"], mask: Bool[Array, "M K"], group_ids: Int[Array, " M"]
) -> Int[Array, "M K"]:
    """Numbers in `[0, M · K)`, equal exactly for turns of one group with equal ids.

    Turns outside `mask` have numbers of their own.
    """
    group = jnp.broadcast_to(masking.everywhere(group_ids)[:, None], ids.shape).ravel()
    flat, kept = masking.everywhere(ids).ravel(), masking.everywhere(mask).ravel()
    outside = jnp.where(kept, 0, 1 + jnp.arange(flat.size, dtype=jnp.int32))
    keys = (outside, group, flat)  # the last key of `lexsort` counts first
    order = jnp.lexsort(keys)
    new = jnp.zeros(flat.size, bool)
    for key in keys:
        new |= key[order] != jnp.roll(key[order], 1)
    number = jnp.cumsum(new.at[0].set(False), dtype=jnp.int32)
    return jnp.zeros_like(number).at[order].set(number).reshape(ids.shape)


def equal_ids(ids: Int[Array, "M K"]) -> Set:
    """The set of all turns of the group whose id is the turn's own."""

    def moments(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
        shape = values.shape
        numbers = dense_ids(ids, jnp.broadcast_to(mask, shape), group_ids).ravel()
        entries = masking.group_moments(
            values.reshape(-1, 1), mask.reshape(-1, 1), numbers, ddof=ddof
        )
        return Moments(*(x.reshape(shape) for x in entries))

    return moments


def same(fact: Fact, episodes: EpisodeBatch) -> Set:
    """The set of all turns of the group with an equal fact `[M, K]`."""
    return equal_ids(facts.read(episodes, fact))


def mean_over(values: jax.Array, over: Set, episodes: EpisodeBatch) -> jax.Array:
    """The mean of the set of each turn, over included trajectories."""
    kept = episodes.turn_mask & episodes.included[:, None]
    return over(values, kept, episodes.group_ids, 0).mean
