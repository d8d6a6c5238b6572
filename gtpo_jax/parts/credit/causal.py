"""Alignment of a response with what the other responses of its group lead to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar

_PLAN = "a plan of causal re-sampling, which answers again from the other responses, provides it"
RESPONSE_STATES = Fact(
    "response_states",
    None,
    "[M, D] float32, last hidden state of each response, read again by the model",
    _PLAN,
)
RESAMPLED_STATES = Fact(
    "resampled_states",
    None,
    "[M, D] float32, mean hidden state of answers sampled again after the prompt, all other"
    " responses and the integrated answer of the group",
    _PLAN,
)
RESAMPLED_MEANS = Fact(
    "resampled_means",
    None,
    "[M, D] float32, the same averaged over the integrated answers",
    _PLAN,
)
STATES = (RESPONSE_STATES, RESAMPLED_STATES, RESAMPLED_MEANS)


def causal_alignment(
    states: Float[Array, "M D"],
    resampled: Float[Array, "M D"],
    resampled_means: Float[Array, "M D"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
) -> Float[Array, " M"]:
    """`cos(z_i, Z_i − Z'_i + mean_g(z))` with the mean over the kept rows of the group; 0 for a
    vector of zeros.
    """
    ids = masking.everywhere(group_ids)
    states, resampled, resampled_means = map(as_float, (states, resampled, resampled_means))

    def total(x: jax.Array) -> jax.Array:
        summed = masking.everywhere(jnp.where(kept[:, None], x, 0.0))
        return jax.ops.segment_sum(summed, ids, num_segments=len(ids))[ids]

    mean = total(states) / jnp.maximum(total(jnp.ones_like(states)), 1.0)
    return _cosines(states, resampled - resampled_means + mean)


def _cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    lengths = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    product = jnp.sum(a * b, axis=1)
    return jnp.where(lengths > 0, product / jnp.where(lengths > 0, lengths, 1.0), 0.0)


def times_alignment(*, scale: Scalar = 2.0) -> Credit:
    """`x · scale · causal_alignment`; a negative alignment changes the sign."""
    checks.check_positive("scale", scale, hint="2 is the paper's")

    def factor(episodes: EpisodeBatch) -> jax.Array:
        states, resampled, means = (jnp.asarray(facts.read(episodes, fact)) for fact in STATES)
        kept = groups.members(episodes)
        return scale * causal_alignment(states, resampled, means, kept, episodes.group_ids)

    return rows.times(factor, needs=STATES)
