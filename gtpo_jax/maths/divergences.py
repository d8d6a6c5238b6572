"""Estimators of the KL divergence from a reference policy, token by token."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.ratios import log_ratios


def kl_k1(
    policy_logprobs: Float[Array, "*B"], reference_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`k1 = log π − log π_ref` on tokens of π: unbiased for KL(π ‖ π_ref), noisy, of any sign.

    As a loss its gradient has mean 0 and regularizes nothing: use it as a part of the reward.
    """
    return _reference_log_ratios(policy_logprobs, reference_logprobs)


def kl_k2(
    policy_logprobs: Float[Array, "*B"], reference_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`k2 = (log π − log π_ref)² / 2`: biased in value, its gradient is that of KL(π ‖ π_ref)."""
    return 0.5 * jnp.square(_reference_log_ratios(policy_logprobs, reference_logprobs))


def kl_k3(
    policy_logprobs: Float[Array, "*B"], reference_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`k3 = r − 1 − log r`, `r = π_ref / π`: unbiased for KL(π ‖ π_ref), never negative (GRPO's).

    Its gradient is that of KL(π_ref ‖ π), not of the divergence that its value estimates.
    """
    return k3(-_reference_log_ratios(policy_logprobs, reference_logprobs))


def k3(log_ratio: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """`r − 1 − log r` of log-ratios `log r`."""
    return jnp.exp(log_ratio) - 1.0 - log_ratio


def _reference_log_ratios(policy_logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
    checks.check_same_shape(policy_logprobs=policy_logprobs, reference_logprobs=reference_logprobs)
    return log_ratios(policy_logprobs, reference_logprobs)


Estimator = Callable[[jax.Array, jax.Array], jax.Array]
"""`(policy_logprobs, reference_logprobs) → divergence per token`."""

ESTIMATORS: dict[str, Estimator] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
"""The estimators by name."""
