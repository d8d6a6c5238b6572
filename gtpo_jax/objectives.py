"""Per-token objectives: log-probs and advantages in, a loss per token out."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LOG_RATIO_BOUND = 20.0
"""Log-ratios are cut here before `exp`.
A guard against overflow, far outside every trust region.
"""


def log_ratios(
    policy_logprobs: Float[Array, "*B"], behavior_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`log π(token) − log μ(token)`, bounded by ±`LOG_RATIO_BOUND`; no gradient reaches μ."""
    difference = policy_logprobs.astype(jnp.float32) - jax.lax.stop_gradient(
        behavior_logprobs.astype(jnp.float32)
    )
    return jnp.clip(difference, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


class ClippedSurrogate(NamedTuple):
    """The loss of each token, and where the clip holds back its gradient."""

    loss: Float[Array, "*B"]
    clipped: Bool[Array, "*B"]


def clipped_surrogate(
    log_ratio: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
) -> ClippedSurrogate:
    """`loss = −min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A)` with `ρ = exp(log_ratio)`.

    The gradient vanishes exactly where a step would push the ratio further out: A > 0 and ρ above
    the band, A < 0 and ρ below it. The paper does not state its clip range; .2 / .28 are DAPO's.
    """
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    ratio = jnp.exp(log_ratio)
    bounded = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    clipped = jnp.where(advantages > 0, ratio > 1.0 + clip_high, ratio < 1.0 - clip_low)
    loss = -jnp.minimum(ratio * advantages, bounded * advantages)
    return ClippedSurrogate(loss, clipped & (advantages != 0))
