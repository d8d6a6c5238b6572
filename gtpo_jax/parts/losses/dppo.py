"""DPPO: the trust region is a divergence of probabilities, not a band of ratios."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.corrections import binary_kl
from gtpo_jax.parts.losses.policy import Surrogate, TokenSurrogate
from gtpo_jax.types import Scalar

Divergence = Literal["tv", "kl"]


def dppo_surrogate(
    log_ratio: Float[Array, "*B"],
    policy_logprobs: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    low: Scalar = 0.2,
    high: Scalar = 0.2,
    divergence: Divergence = "tv",
) -> Surrogate:
    """`loss = −ρ A`, and 0 for tokens that left the trust region (DPPO, arXiv 2602.04879).

    With `p = π(token)` and `q = μ(token)`, a token has left it if A > 0, p > q and D > `high`, or
    A < 0, p < q and D > `low`. D is the total variation `|p − q|` over the two events "this token"
    and "another" ("tv"), or their KL(μ ‖ π) ("kl", for which the paper recommends .05).
    """
    checks.check_same_shape(
        log_ratio=log_ratio, policy_logprobs=policy_logprobs, advantages=advantages
    )
    advantages = jax.lax.stop_gradient(as_float(advantages))
    log_p = jax.lax.stop_gradient(as_float(policy_logprobs))
    log_q = log_p - jax.lax.stop_gradient(as_float(log_ratio))
    gain = jnp.exp(log_p) - jnp.exp(log_q)
    distance = jnp.abs(gain) if divergence == "tv" else binary_kl(log_q, log_p)
    up = (advantages > 0) & (gain > 0) & (distance > high)
    down = (advantages < 0) & (gain < 0) & (distance > low)
    outside = up | down
    loss = -jnp.exp(as_float(log_ratio)) * advantages
    return Surrogate(jnp.where(outside, 0.0, loss), outside)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrustRegion(TokenSurrogate):
    """`dppo_surrogate` with its options: the surrogate of a `PolicyTerm`."""

    low: float = 0.2
    high: float = 0.2
    divergence: Divergence = "tv"

    def __post_init__(self):
        hint = "0.2 is usual for tv, 0.05 for kl"
        checks.check_range("low", self.low, 0.0, float("inf"), hint=hint)
        checks.check_range("high", self.high, 0.0, float("inf"), hint=hint)

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        return dppo_surrogate(
            log_ratio,
            policy_logprobs,
            advantages,
            low=self.low,
            high=self.high,
            divergence=self.divergence,
        )
