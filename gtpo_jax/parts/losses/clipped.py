"""The clipped surrogate of PPO, and its variants with other bands and bounds."""

from __future__ import annotations

import dataclasses
import numbers

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.loss import Loss
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate
from gtpo_jax.types import Scalar

INFINITY = float("inf")


def clipped_surrogate(
    log_ratio: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    clip_low: Scalar = 0.2,
    clip_high: Scalar = 0.28,
    dual_clip: Scalar | None = None,
    ratio_cap: Scalar | None = None,
) -> Surrogate:
    """`loss = −min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A)` with `ρ = exp(log_ratio)`.

    The gradient vanishes exactly where a step would push the ratio further out: A > 0 and ρ above
    the band, A < 0 and ρ below it. The paper does not state its clip range; .2 / .28 are DAPO's.

    For A < 0 and a large ratio the loss has no bound. Two options bound it, both off by default and
    without effect on A > 0: `dual_clip` c > 1 bounds the loss by `−c A` (arXiv 1912.09729), and
    `ratio_cap` δ > 1 + clip_high bounds ρ in the unclipped term (two-sided clip, arXiv 2505.07291).
    """
    checks.check_same_shape(log_ratio=log_ratio, advantages=advantages)
    check_band(clip_low, clip_high)
    check_bounds(clip_high, dual_clip, ratio_cap)
    advantages = jax.lax.stop_gradient(as_float(advantages))
    ratio = jnp.exp(as_float(log_ratio))
    unbounded = ratio if ratio_cap is None else jnp.minimum(ratio, ratio_cap)
    band = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    gain = jnp.minimum(unbounded * advantages, band * advantages)
    negative = advantages < 0
    clipped = jnp.where(negative, ratio < 1.0 - clip_low, ratio > 1.0 + clip_high)
    if ratio_cap is not None:
        clipped |= negative & (ratio > ratio_cap)
    if dual_clip is not None:
        clipped |= negative & (ratio > dual_clip)
        gain = jnp.where(negative, jnp.maximum(gain, dual_clip * advantages), gain)
    return Surrogate(-gain, clipped & (advantages != 0))


def check_band(clip_low: Scalar, clip_high: Scalar) -> None:
    """Raises unless the band `[1 − clip_low, 1 + clip_high]` contains 1 and no negative ratio."""
    checks.check_range("clip_low", clip_low, 0.0, 1.0, hint="the ratio is held above 1 - clip_low")
    checks.check_range(
        "clip_high", clip_high, 0.0, INFINITY, hint="the ratio is held below 1 + clip_high"
    )


def check_bounds(clip_high: Scalar, dual_clip: Scalar | None, ratio_cap: Scalar | None) -> None:
    """Raises unless both bounds for negative advantages are outside the band."""
    checks.check_range("dual_clip", dual_clip, 1.0, INFINITY, hint="3 is usual, None is off")
    if isinstance(clip_high, numbers.Real):
        checks.check_range(
            "ratio_cap", ratio_cap, 1.0 + float(clip_high), INFINITY, hint="4 is usual, None is off"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """`clipped_surrogate` with its options: the surrogate of a `PolicyTerm`."""

    low: float = 0.2
    high: float = 0.28
    dual: float | None = None
    ratio_cap: float | None = None

    def __post_init__(self):
        check_band(self.low, self.high)
        check_bounds(self.high, self.dual, self.ratio_cap)

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        del policy_logprobs
        return clipped_surrogate(
            log_ratio,
            advantages,
            clip_low=self.low,
            clip_high=self.high,
            dual_clip=self.dual,
            ratio_cap=self.ratio_cap,
        )


@dataclasses.dataclass(frozen=True)
class Unclipped:
    """`loss = −ρ A`: the surrogate of a `PolicyTerm` without a trust region of its own."""

    def __call__(
        self, log_ratio: jax.Array, policy_logprobs: jax.Array, advantages: jax.Array
    ) -> Surrogate:
        del policy_logprobs
        advantages = jax.lax.stop_gradient(as_float(advantages))
        loss = -jnp.exp(as_float(log_ratio)) * advantages
        return Surrogate(loss, jnp.zeros(loss.shape, bool))


def clipped(
    *,
    low: float = 0.2,
    high: float = 0.28,
    dual: float | None = None,
    ratio_cap: float | None = None,
) -> Loss:
    """The clipped surrogate of every token, its ratio against the behavior policy."""
    return Loss((PolicyTerm(Clip(low=low, high=high, dual=dual, ratio_cap=ratio_cap)),))
