"""SAPO's soft gate: the gradient fades as the ratio leaves 1, and never stops at once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.policy import Surrogate
from gtpo_jax.types import Scalar


def soft_gate_surrogate(
    log_ratio: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    positive: Scalar = 1.0,
    negative: Scalar = 1.05,
) -> Surrogate:
    """`loss = −(4 / τ) σ(τ (ρ − 1)) A`, with τ = `positive` for A > 0 and `negative` else (SAPO,
    arXiv 2511.20347).

    The weight of the score is `4 p (1 − p) ρ`, `p = σ(τ (ρ − 1))`: 1 at ρ = 1, whatever τ. Nothing
    is marked as clipped.
    """
    checks.check_same_shape(log_ratio=log_ratio, advantages=advantages)
    checks.check_positive("positive", positive, hint="1 is the paper's")
    checks.check_positive("negative", negative, hint="1.05 is the paper's")
    advantages = jax.lax.stop_gradient(as_float(advantages))
    tau = jnp.where(advantages > 0, positive, negative)
    gate = jax.nn.sigmoid(tau * (jnp.exp(as_float(log_ratio)) - 1.0)) * 4.0 / tau
    return Surrogate(-gate * advantages, jnp.zeros(advantages.shape, bool))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftGate:
    """`soft_gate_surrogate` with its options: the surrogate of a `PolicyTerm`."""

    positive: float = 1.0
    negative: float = 1.05

    def __post_init__(self):
        checks.check_positive("positive", self.positive, hint="1 is the paper's")
        checks.check_positive("negative", self.negative, hint="1.05 is the paper's")

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        del policy_logprobs
        return soft_gate_surrogate(
            log_ratio, advantages, positive=self.positive, negative=self.negative
        )
