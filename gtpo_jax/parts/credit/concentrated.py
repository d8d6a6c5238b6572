"""Advantages weighted by the certainty of the turn (AEM, arXiv 2605.00425)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar


def certainty_weights(
    entropies: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    rate: Scalar,
) -> Float[Array, "M K"]:
    """`α_mk = exp(−rate · h_mk) / mean(exp(−rate · h))` with `h = (H − min H) / (max H − min H)`,
    where mean, min and max are over the turns of the group in `mask`.

    The weights of a group have mean 1. They are 1 for equal entropies and outside `mask`.
    """
    entropies = as_float(entropies)

    def largest(x: jax.Array) -> jax.Array:
        of_rows = jnp.max(x, axis=1, where=mask, initial=-jnp.inf)
        return groups.largest(of_rows, jnp.any(mask, axis=1), group_ids)[:, None]

    low = -largest(-entropies)
    width = largest(entropies) - low
    relative = jnp.where(mask & (width > 0), (entropies - low) / jnp.where(width > 0, width, 1), 0)
    raw = jnp.exp(-rate * relative)
    mean = masking.group_moments(raw, mask, group_ids).mean[:, None]
    return jnp.where(mask, raw / jnp.where(mean > 0, mean, 1.0), 1.0)


def concentrated(rate: Scalar = 1.0) -> Credit:
    """Advantages times `certainty_weights` of the mean entropies of turns."""

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        entropies = facts.read(episodes, facts.TURN_ENTROPIES)
        mask = episodes.turn_mask & episodes.included[:, None]
        return x * certainty_weights(entropies, mask, episodes.group_ids, rate=rate)

    return stateless(values, needs=(facts.TURN_ENTROPIES,))
