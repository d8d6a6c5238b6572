"""Advantages that grow with the entropy of the token (AEPO, arXiv 2510.14545)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.credit.standardized import normalize
from gtpo_jax.parts.spreads.spread import Spread, Written, evenly, facts_of, needing
from gtpo_jax.types import EpisodeBatch, Scalar


def entropy_factors(
    entropies: Float[Array, "M L"],
    mask: Bool[Array, "M L"],
    *,
    weight: Scalar = 0.2,
    ddof: int = 1,
    eps: Scalar = 0.0,
) -> Float[Array, "M L"]:
    """`1 + weight · (H_t − mean(H)) / (std(H) + eps)` over all tokens in `mask`; 1 for equal
    entropies and outside `mask`.
    """
    batch = jnp.zeros(len(mask), jnp.int32)
    return 1.0 + weight * normalize(as_float(entropies), mask, batch, ddof=ddof, eps=eps)


def entropy_scaled(
    before: Spread = evenly, *, weight: Scalar = 0.2, ddof: int = 1, eps: Scalar = 0.0
) -> Spread:
    """The advantages of tokens by another spread, times `entropy_factors`."""

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        mask = (jnp.asarray(written.turn_ids) >= 0) & episodes.included[:, None]
        factors = entropy_factors(written.entropies, mask, weight=weight, ddof=ddof, eps=eps)
        return jnp.where(mask, before(advantages, written, episodes) * factors, 0.0)

    return needing(spread, *facts_of(before))
