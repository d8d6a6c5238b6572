"""Importance weights for a sampler that disagrees with the learner."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.ratios import log_ratios
from gtpo_jax.types import Scalar


class ImportanceWeights(NamedTuple):
    """Weights for a loss on tokens that another policy sampled, and a measure of their spread."""

    weights: Float[Array, "*B"]
    truncated: Bool[Array, "*B"]  # the weight was above the limit
    effective_share: Float[Array, ""]  # effective sample size over the number of trained tokens


def truncated_importance_weights(
    learner_logprobs: Float[Array, "*B"],
    sampler_logprobs: Float[Array, "*B"],
    loss_mask: Bool[Array, "*B"],
    *,
    limit: Scalar = 2.0,
) -> ImportanceWeights:
    """`w = min(π_learner / π_sampler, limit)`, for two implementations of *one* policy that
    disagree.

    Detached, and 0 where `loss_mask` is False.

    `effective_share = (Σ w)² / (n Σ w²)`, computed before truncation: 1 if the implementations
    agree. Only large weights are truncated (TIS): small weights are correct and belong to tokens
    that are rare for the learner.
    """
    checks.check_same_shape(
        learner_logprobs=learner_logprobs, sampler_logprobs=sampler_logprobs, loss_mask=loss_mask
    )
    checks.check_masks(loss_mask=loss_mask)
    checks.check_positive("limit", limit, hint="2 is usual, infinity truncates nothing")
    log_ratio = jax.lax.stop_gradient(log_ratios(learner_logprobs, sampler_logprobs))
    ratio = jnp.where(loss_mask, jnp.exp(jnp.where(loss_mask, log_ratio, 0.0)), 0.0)
    count = jnp.maximum(jnp.sum(loss_mask, dtype=jnp.float32), 1.0)
    squares = jnp.sum(jnp.square(ratio))
    share = jnp.square(jnp.sum(ratio)) / jnp.where(squares > 0, count * squares, 1.0)
    return ImportanceWeights(jnp.minimum(ratio, limit), ratio > limit, share)
