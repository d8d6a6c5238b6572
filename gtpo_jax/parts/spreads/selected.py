"""Only some tokens keep their advantage: those of high entropy, or of much of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.schedules import Schedule
from gtpo_jax.parts.spreads.spread import Spread, Written, evenly, facts_of, needing
from gtpo_jax.types import EpisodeBatch


def largest(
    scores: Float[Array, "M L"], mask: Bool[Array, "M L"], number: Int[Array, ""]
) -> Bool[Array, "M L"]:
    """The `number` largest scores within `mask`, and all that equal the last of them."""
    ordered = jnp.sort(jnp.where(mask, as_float(scores), -jnp.inf).ravel())[::-1]
    least = ordered[jnp.clip(number - 1, 0, ordered.size - 1)]
    return mask & (scores >= least) & (number > 0)


def share_of(mask: Bool[Array, "M L"], share: jax.Array | float) -> Int[Array, ""]:
    """`⌈share · n⌉` of the n tokens in `mask`, where less than a thousandth of one is rounding."""
    return jnp.ceil(share * jnp.sum(mask) - 1e-3).astype(jnp.int32)


def of_high_entropy(before: Spread = evenly, *, share: float = 0.2) -> Spread:
    """The advantages of another spread for the `⌈share · n⌉` of the n tokens of the step that have
    the highest entropies, 0 for the others (arXiv 2506.01939).
    """

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        mask = written_mask(written, episodes)
        kept = largest(jnp.asarray(written.entropies), mask, share_of(mask, share))
        return jnp.where(kept, before(advantages, written, episodes), 0.0)

    return needing(spread, *facts_of(before))


def of_large_steps(before: Spread = evenly, *, share: Schedule) -> Spread:
    """The advantages A of another spread for the `⌈share · n⌉` tokens with the largest `|A| · H`, 0
    for the others; n counts the tokens of the step with A ≠ 0 (D3S, arXiv 2509.22115).
    """

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        values = before(advantages, written, episodes)
        mask = written_mask(written, episodes) & (values != 0)
        step = jnp.max(jnp.asarray(facts.read(episodes, facts.STEP)))
        sizes = jnp.abs(values) * as_float(written.entropies)
        return jnp.where(largest(sizes, mask, share_of(mask, share(step))), values, 0.0)

    return needing(spread, *facts.union(facts_of(before), (facts.STEP,)))


def written_mask(written: Written, episodes: EpisodeBatch) -> Bool[Array, "M L"]:
    """True for the tokens of included trajectories."""
    return (jnp.asarray(written.turn_ids) >= 0) & episodes.included[:, None]
