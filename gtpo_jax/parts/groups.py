"""Statistics of a group of trajectories, gathered back to its rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from gtpo_jax.maths import masking
from gtpo_jax.types import EpisodeBatch, Scalar


def members(episodes: EpisodeBatch) -> Bool[Array, " M"]:
    """True for included trajectories with turns: those that statistics are taken over."""
    return episodes.included & jnp.any(episodes.turn_mask, axis=1)


def pairs(ids: Int[Array, " M"], kept: Bool[Array, " M"]) -> Bool[Array, "M M"]:
    """`out[i, j]`: rows i and j have equal ids and row j is kept."""
    return (ids[:, None] == masking.everywhere(ids)) & masking.everywhere(kept)


def largest(
    values: Num[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"], *, empty: Scalar
) -> Num[Array, " M"]:
    """The largest value among the rows of the group that are kept; `empty` if there are none."""
    return _over(jax.ops.segment_max, jnp.where(kept, values, empty), group_ids)


def smallest(
    values: Num[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"], *, empty: Scalar
) -> Num[Array, " M"]:
    """The smallest value among the rows of the group that are kept; `empty` if there are none."""
    return _over(jax.ops.segment_min, jnp.where(kept, values, empty), group_ids)


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
