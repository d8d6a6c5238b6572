"""Units of tokens in packed rows: trajectories, or their turns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gtpo_jax.types import TokenBatch


def unit_ids(batch: TokenBatch, *, turns: bool) -> Int[Array, "B T"]:
    """A number that changes along a row exactly where a trajectory, or a turn, begins.

    Untrained tokens inside a turn and behind it count to the turn. Ids of turns never fall within a
    trajectory.
    """
    new = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    segment = jnp.pad(jnp.cumsum(new, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    if not turns:
        return segment
    most = jnp.max(batch.turn_ids, axis=1, keepdims=True, initial=0)
    return jax.lax.cummax(segment * (most + 2) + batch.turn_ids + 1, axis=1)


def row_unit_ids(batch: TokenBatch, *, turns: bool) -> Int[Array, "B T"]:
    """The same units, numbered in `[0, B · T)`: unique in the batch, not only along a row."""
    ids = unit_ids(batch, turns=turns)
    rows, length = ids.shape
    new = jnp.pad(ids[:, 1:] != ids[:, :-1], ((0, 0), (1, 0)))
    return jnp.cumsum(new, axis=1, dtype=jnp.int32) + length * jnp.arange(rows)[:, None]
