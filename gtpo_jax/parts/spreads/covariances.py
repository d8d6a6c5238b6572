"""Tokens whose log-prob and advantage vary together: they are what makes entropy collapse (arXiv
2505.22617).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import draws
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.spreads.selected import largest, written_mask
from gtpo_jax.parts.spreads.spread import Mark, Spread, Written, evenly, facts_of, needing
from gtpo_jax.types import EpisodeBatch


def covariances(
    advantages: Float[Array, "M L"], logprobs: Float[Array, "M L"], mask: Bool[Array, "M L"]
) -> Float[Array, "M L"]:
    """`(A_t − mean(A)) (log π_t − mean(log π))`, means over all tokens in `mask`; 0 outside it."""
    count = jnp.maximum(jnp.sum(mask), 1)

    def centered(x: jax.Array) -> jax.Array:
        x = jnp.where(mask, as_float(x), 0.0)
        return jnp.where(mask, x - jnp.sum(x) / count, 0.0)

    return centered(advantages) * centered(logprobs)


def without_covariant(
    before: Spread = evenly, *, share: float = 2e-4, low: float = 1.0, high: float = 5.0
) -> Spread:
    """The advantages of another spread, but 0 for `max(⌊share · n⌋, 1)` tokens drawn from those
    with a covariance between `low` and `high` (Clip-Cov); for all of these if they are fewer.

    Covariances are those of the sampler's log-probs and cover the n tokens of the step. The draw is
    by a hash of the token, its log-prob and its place.
    """

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        values, mask = before(advantages, written, episodes), written_mask(written, episodes)
        logprobs = jnp.asarray(written.logprobs)
        found = covariances(values, logprobs, mask)
        within = mask & (found > low) & (found < high)
        places = jnp.arange(mask.shape[1])
        keys = draws.mixed(draws.mixed(draws.of_numbers(logprobs), places), written.tokens)
        ordered = jnp.sort(jnp.where(within, keys, jnp.uint32(0xFFFFFFFF)).ravel())
        last = ordered[jnp.minimum(covered(mask, share) - 1, ordered.size - 1)]
        return jnp.where(within & (keys <= last), 0.0, values)

    return needing(spread, *facts_of(before))


def most_covariant(share: float) -> Mark:
    """The mark "covariant": 1 for the `max(⌊share · n⌋, 1)` tokens of the step with the largest
    covariances, 0 for the others (KL-Cov).
    """

    def mark(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        mask = written_mask(written, episodes)
        found = covariances(advantages, jnp.asarray(written.logprobs), mask)
        chosen = largest(found, mask, covered(mask, share))
        return chosen.astype(found.dtype)

    return Mark("covariant", mark)


def covered(mask: Bool[Array, "M L"], share: float) -> jax.Array:
    """`max(⌊share · n⌋, 1)` of the n tokens in `mask`."""
    return jnp.maximum(jnp.floor(share * jnp.sum(mask) + 1e-6).astype(jnp.int32), 1)
