"""Sets of turns with equal ids, such as all turns that begin in the same state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gtpo_jax.maths import masking, turns
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.sets import Moments, Set
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


def dense_ids(
    ids: Int[Array, "*several M K"], mask: Bool[Array, "M K"], group_ids: Int[Array, " M"]
) -> Int[Array, "M K"]:
    """Numbers in `[0, M · K)`, equal exactly for turns of one group with equal ids.

    With `several` ids a turn, all of them have to be equal. Turns outside `mask` have numbers of
    their own.
    """
    group = jnp.broadcast_to(masking.everywhere(group_ids)[:, None], mask.shape).ravel()
    several, kept = masking.everywhere(ids).reshape(-1, mask.size), masking.everywhere(mask).ravel()
    outside = jnp.where(kept, 0, 1 + jnp.arange(mask.size, dtype=jnp.int32))
    keys = (outside, group, *several)  # the last key of `lexsort` counts first
    order = jnp.lexsort(keys)
    new = jnp.zeros(mask.size, bool)
    for key in keys:
        new |= key[order] != jnp.roll(key[order], 1)
    number = jnp.cumsum(new.at[0].set(False), dtype=jnp.int32)
    return jnp.zeros_like(number).at[order].set(number).reshape(mask.shape)


def equal_ids(ids: Int[Array, "*several M K"]) -> Set:
    """The set of all turns of the group whose ids are the turn's own."""

    def moments(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
        shape = values.shape
        # Turns become rows of their own: their numbers are compared on every device.
        values, mask = masking.everywhere(values), masking.everywhere(jnp.broadcast_to(mask, shape))
        numbers = dense_ids(ids, mask, group_ids).ravel()
        entries = masking.group_moments(
            values.reshape(-1, 1), mask.reshape(-1, 1), numbers, ddof=ddof
        )
        return Moments(*(x.reshape(shape) for x in entries))

    return moments


def same(fact: Fact, episodes: EpisodeBatch) -> Set:
    """The set of all turns of the group with an equal fact `[M, K]`."""
    return equal_ids(facts.read(episodes, fact))


def transitions(
    anchors: Int[Array, "M K"], actions: Int[Array, "M K"], turn_mask: Bool[Array, "M K"]
) -> Int[Array, "3 M K"]:
    """State, action and next state of each turn; the next state of a last turn is −1."""
    following = jnp.pad(anchors[:, 1:], ((0, 0), (0, 1)))
    following = jnp.where(turns.last_turns(turn_mask), -1, following)
    return jnp.stack([anchors, actions, following])


def histories(anchors: Int[Array, "M K"], actions: Int[Array, "M K"]) -> Int[Array, "M K"]:
    """Ids of all that precedes each turn: states and actions since the first turn, and the state.

    Equal histories have equal ids; two different ones share an id with a probability of 5e-10.
    """
    anchors, actions = (jnp.asarray(x).astype(jnp.uint32) for x in (anchors, actions))

    def mix(code: jax.Array, word: jax.Array) -> jax.Array:
        # FNV-1a on whole words; the shift brings the high bits down into the product.
        code = (code ^ word) * jnp.uint32(16777619)
        return code ^ (code >> 15)

    def step(before: jax.Array, turn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state, action = turn
        here = mix(before, state)
        return mix(here, action), here

    start = jnp.full_like(anchors[:, 0], 2166136261)
    _, codes = jax.lax.scan(step, start, (anchors.T, actions.T))
    return (codes.T >> 1).astype(jnp.int32)


def mean_over(values: jax.Array, over: Set, episodes: EpisodeBatch) -> jax.Array:
    """The mean of the set of each turn, over included trajectories."""
    kept = episodes.turn_mask & episodes.included[:, None]
    return over(values, kept, episodes.group_ids, 0).mean
