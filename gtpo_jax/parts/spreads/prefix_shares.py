"""Tokens that several trajectories of a group share count once (λ-GRPO, arXiv 2509.21154)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from gtpo_jax.maths import draws, masking
from gtpo_jax.parts import facts
from gtpo_jax.parts.spreads.selected import written_mask
from gtpo_jax.parts.spreads.spread import Spread, Written, evenly, facts_of, needing
from gtpo_jax.types import EpisodeBatch


def prefix_ids(
    tokens: Int[Array, "M L"], turn_ids: Int[Array, "M L"], contexts: Int[Array, "M K"]
) -> UInt32[Array, "M L"]:
    """A hash of everything up to each token, itself included: of the id of what stood before its
    turn (`contexts`), and of the tokens of the turn.
    """
    starts = jnp.take_along_axis(contexts, jnp.maximum(turn_ids, 0), axis=1).astype(jnp.uint32)
    first = jnp.pad(turn_ids[:, 1:] != turn_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def step(before: jax.Array, here: tuple) -> tuple[jax.Array, jax.Array]:
        token, start, begins = here
        after = draws.mixed(jnp.where(begins, start, before), token)
        return after, after

    columns = (tokens.T, starts.T, first.T)
    return jax.lax.scan(step, jnp.zeros(len(tokens), jnp.uint32), columns)[1].T


def multiplicities(
    ids: UInt32[Array, "M L"], mask: Bool[Array, "M L"], group_ids: Int[Array, " M"]
) -> Int[Array, "M L"]:
    """The number of trajectories of the group with an equal id at the same place, itself included;
    1 outside `mask`.
    """
    ids, mask, group_ids = (masking.everywhere(x) for x in (ids, mask, group_ids))

    def of_row(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, group = row
        equal = (ids == own) & mask & (group_ids == group)[:, None]
        return jnp.sum(equal, axis=0, dtype=jnp.int32)

    # Row by row: the comparison of all pairs of rows at once would not fit into memory.
    return jnp.where(mask, jnp.maximum(jax.lax.map(of_row, (ids, group_ids)), 1), 1)


def once_for_shared(before: Spread = evenly) -> Spread:
    """The advantages of another spread, divided by the number of trajectories of the group that
    share the token and everything before it: prompt, turns and tool output.
    """

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        mask = written_mask(written, episodes)
        contexts = jnp.asarray(facts.read(episodes, facts.CONTEXTS))
        ids = prefix_ids(jnp.asarray(written.tokens), jnp.asarray(written.turn_ids), contexts)
        return before(advantages, written, episodes) / multiplicities(ids, mask, episodes.group_ids)

    return needing(spread, *facts.union(facts_of(before), (facts.CONTEXTS,)))
