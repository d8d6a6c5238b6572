"""REINFORCE on tokens whose ratio is within a range: the losses of REC, OPMD and AsymRE."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.clipped import check_band
from gtpo_jax.parts.losses.policy import Surrogate

Sides = Literal["none", "one", "two", "ring"]
Weight = Literal["none", "ratio", "advantage"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce:
    """`loss = −scale · w · A log π` for tokens in range, 0 for the others (arXiv 2509.24203): the
    surrogate of a `PolicyTerm`.

    A token is in range, with `ρ = π / μ`, by `sides`:

    | sides | in range |
    |---|---|
    | none | always |
    | one | A > 0 and ρ ≤ 1 + high, or A < 0 and ρ ≥ 1 − low: where PPO's clip has a gradient |
    | two | 1 − low ≤ ρ ≤ 1 + high |
    | ring | two, or A > 0 and ρ ≤ 1 − ring_low, or A < 0 and ρ ≥ 1 + ring_high |

    `weight` makes w the ratio ρ, or `exp(A / temperature)` of the advantage; neither passes a
    gradient. Without weights the loss is off-policy REINFORCE, no importance sampling.
    """

    sides: Sides = "one"
    low: float = 0.2
    high: float = 0.2
    ring_low: float = 0.6
    ring_high: float = 2.0
    weight: Weight = "none"
    temperature: float = 1.0
    scale: float = 1.0

    def __post_init__(self):
        check_band(self.low, self.high)
        check_band(self.ring_low, self.ring_high)
        checks.check_positive("temperature", self.temperature, hint="1 is usual")

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        checks.check_same_shape(
            log_ratio=log_ratio, policy_logprobs=policy_logprobs, advantages=advantages
        )
        advantages = jax.lax.stop_gradient(as_float(advantages))
        ratio = jax.lax.stop_gradient(jnp.exp(as_float(log_ratio)))
        kept = self.in_range(ratio, advantages)
        weight = jnp.ones_like(ratio)
        if self.weight == "ratio":
            weight = ratio
        elif self.weight == "advantage":
            weight = jnp.exp(advantages / self.temperature)
        loss = -self.scale * weight * advantages * as_float(policy_logprobs)
        return Surrogate(jnp.where(kept, loss, 0.0), ~kept & (advantages != 0))

    def in_range(
        self, ratio: Float[Array, "*B"], advantages: Float[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """True for the tokens that keep their gradient."""
        up, down = advantages >= 0, advantages <= 0
        above_low, below_high = ratio >= 1.0 - self.low, ratio <= 1.0 + self.high
        if self.sides == "one":
            return (up & below_high) | (down & above_low)
        if self.sides == "two":
            return above_low & below_high
        if self.sides == "ring":
            outer = (up & (ratio <= 1.0 - self.ring_low)) | (down & (ratio >= 1.0 + self.ring_high))
            return (above_low & below_high) | outer
        return jnp.ones(ratio.shape, bool)
