"""Each value minus the mean of the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import normalize
from gtpo_jax.types import EpisodeBatch


def leave_one_out(over: sets.Set = sets.first_turn) -> Credit:
    """`x_i − mean_{j ≠ i}(x_j)` over the n members of the set, as `n / (n − 1) · (x_i − mean(x))`.

    A value without others has no baseline and becomes 0.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept = episodes.turn_mask & episodes.included[:, None]
        centered = normalize(x, kept, episodes.group_ids, over=over, divide_by_std=False)
        count = over(centered, kept, episodes.group_ids, 0).count
        return centered * (count / jnp.maximum(count - 1.0, 1.0))

    return stateless(values)
