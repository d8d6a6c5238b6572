"""CISPO: the weight of a token is clipped, its gradient is not (arXiv 2506.13585)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.clipped import check_band
from gtpo_jax.parts.losses.loss import Loss
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate
from gtpo_jax.types import Scalar


def cispo_surrogate(
    log_ratio: Float[Array, "*B"],
    policy_logprobs: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    clip_low: Scalar = 1.0,
    clip_high: Scalar = 0.28,
) -> Surrogate:
    """`loss = −sg(clip(ρ, 1 − clip_low, 1 + clip_high)) A log π` (CISPO, arXiv 2506.13585).

    Every token keeps its gradient, and only its weight is bounded; `clip_low` 1 turns off the lower
    bound. `clipped` marks the tokens whose weight is at a bound.
    """
    checks.check_same_shape(
        log_ratio=log_ratio, policy_logprobs=policy_logprobs, advantages=advantages
    )
    check_band(clip_low, clip_high)
    advantages = jax.lax.stop_gradient(as_float(advantages))
    ratio = jax.lax.stop_gradient(jnp.exp(as_float(log_ratio)))
    weight = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -weight * advantages * as_float(policy_logprobs)
    return Surrogate(loss, (weight != ratio) & (advantages != 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightClip:
    """`cispo_surrogate` with its options: the surrogate of a `PolicyTerm`."""

    low: float = 1.0
    high: float = 0.28

    def __post_init__(self):
        check_band(self.low, self.high)

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        return cispo_surrogate(
            log_ratio, policy_logprobs, advantages, clip_low=self.low, clip_high=self.high
        )


def cispo(*, low: float = 1.0, high: float = 0.28) -> Loss:
    """CISPO's loss of every token: a clipped weight times the log-prob."""
    return Loss((PolicyTerm(WeightClip(low=low, high=high)),))
