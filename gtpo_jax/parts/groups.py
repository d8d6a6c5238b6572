"""Statistics of a group of trajectories, gathered back to its rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from gtpo_jax.maths import masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.types import EpisodeBatch, Scalar


def members(episodes: EpisodeBatch) -> Bool[Array, " M"]:
    """True for included trajectories with turns: those that statistics are taken over."""
    return episodes.included & jnp.any(episodes.turn_mask, axis=1)


def pairs(ids: Int[Array, " M"], kept: Bool[Array, " M"]) -> Bool[Array, "M M"]:
    """`out[i, j]`: rows i and j have equal ids and row j is kept."""
    return (ids[:, None] == masking.everywhere(ids)) & masking.everywhere(kept)


def largest(
    values: Num[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    empty: Scalar = 0,
) -> Num[Array, " M"]:
    """The largest value among the rows of the group that are kept; `empty` if there are none."""
    return _extreme(jax.ops.segment_max, values, kept, group_ids, -jnp.inf, empty)


def smallest(
    values: Num[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    empty: Scalar = 0,
) -> Num[Array, " M"]:
    """The smallest value among the rows of the group that are kept; `empty` if there are none."""
    return _extreme(jax.ops.segment_min, values, kept, group_ids, jnp.inf, empty)


def _extreme(
    segment: Callable[..., jax.Array],
    values: jax.Array,
    kept: jax.Array,
    group_ids: jax.Array,
    beyond: float,
    empty: Scalar,
) -> jax.Array:
    found = _over(segment, jnp.where(kept, as_float(values), beyond), group_ids)
    return jnp.where(jnp.isfinite(found), found, empty).astype(values.dtype)


def total(
    values: Num[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Num[Array, " M"]:
    """The sum over the rows of the group that are kept."""
    return _over(jax.ops.segment_sum, jnp.where(kept, values, 0), group_ids)


def mean(
    values: Float[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Float[Array, " M"]:
    """The mean over the rows of the group that are kept; 0 if there are none."""
    count = total(kept.astype(jnp.int32), kept, group_ids)
    return total(values, kept, group_ids) / jnp.maximum(count, 1)


def _over(segment: Callable[..., jax.Array], values: jax.Array, group_ids: jax.Array) -> jax.Array:
    ids = masking.everywhere(group_ids)
    return segment(masking.everywhere(values), ids, num_segments=len(ids))[ids]
