"""Advantages weighed by how often the group succeeds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar


def difficulty_weights(
    success: Float[Array, "*shape"],
    *,
    lowest: Scalar = 0.4,
    highest: Scalar = 1.5,
    steepness: Scalar = 10.0,
    center: Scalar = 0.75,
) -> Float[Array, "*shape"]:
    """`w(p) = lowest + (highest − lowest) / (1 + exp(steepness · (p − center)))`, falling in p."""
    return lowest + (highest - lowest) * jax.nn.sigmoid(steepness * (center - as_float(success)))


def times_difficulty(
    *,
    lowest: Scalar = 0.4,
    highest: Scalar = 1.5,
    steepness: Scalar = 10.0,
    center: Scalar = 0.75,
) -> Credit:
    """`x · w(p)` for x > 0 and `x · w(1 − p)` else, with the success rate p of the group.

    Rare successes and rare failures get more; see `difficulty_weights`.
    """
    checks.check_range("lowest", lowest, 0.0, float("inf"), hint="it is the smallest weight")
    curve = {"lowest": lowest, "highest": highest, "steepness": steepness, "center": center}

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        success = episodes.success.astype(x.dtype)
        moments = rows.row_moments(success, sets.group, kept, episodes.group_ids)
        rate = moments.mean[:, None]
        weights = jnp.where(
            x > 0, difficulty_weights(rate, **curve), difficulty_weights(1.0 - rate, **curve)
        )
        return x * weights

    return stateless(values)
