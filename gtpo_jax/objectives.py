"""Per-token objectives: log-ratios and advantages in, a loss per token out.

    ratios     log_ratios (per token) → unit_log_ratios (per trajectory, or per turn)
    losses     clipped_surrogate, cispo
    penalties  kl_k1, kl_k2, kl_k3
    mismatch   truncated_importance_weights

Gradients stop at advantages and at the log-probs of other policies, always.
"""

from __future__ import annotations

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.types import Scalar

INFINITY = float("inf")
LOG_RATIO_BOUND = 20.0
"""Log-ratios are cut here before `exp`.
A guard against overflow, far outside every trust region; it stops the gradient outside.
"""


def log_ratios(
    policy_logprobs: Float[Array, "*B"], behavior_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`log π(token) − log μ(token)`, bounded by ±`LOG_RATIO_BOUND`; no gradient reaches μ."""
    checks.check_same_shape(policy_logprobs=policy_logprobs, behavior_logprobs=behavior_logprobs)
    difference = policy_logprobs.astype(jnp.float32) - jax.lax.stop_gradient(
        behavior_logprobs.astype(jnp.float32)
    )
    return jnp.clip(difference, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def bound_binds(log_ratio: Float[Array, "*B"]) -> Bool[Array, "*B"]:
    """Where `LOG_RATIO_BOUND` cut a log-ratio: the two policies have nothing in common there."""
    return jnp.abs(log_ratio) >= LOG_RATIO_BOUND


def unit_log_ratios(
    log_ratio: Float[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    unit_ids: Int[Array, "B T"],
    *,
    units: int,
) -> Float[Array, "B T"]:
    """The mean log-ratio of each token's unit on every token of it, as if the unit were one action.

    `out_t = log ρ_t − sg(log ρ_t) + sg(mean of log ρ over the trained tokens of the unit of t)`

    A unit is a trajectory (GSPO, arXiv 2507.18071: `unit_ids = trajectory_ids`) or a turn (our own:
    `unit_ids = trajectory_ids * max_turns + turn_ids`); ids lie in `[0, units)`, negative ones
    belong to no unit. The value is the unit's, the gradient each token's own. Untrained tokens get
    0.
    """
    checks.check_same_shape(log_ratio=log_ratio, loss_mask=loss_mask, unit_ids=unit_ids)
    checks.check_masks(loss_mask=loss_mask)
    kept = loss_mask & (unit_ids >= 0)
    index = masking.everywhere(jnp.maximum(unit_ids, 0))
    values = jnp.where(kept, jax.lax.stop_gradient(log_ratio.astype(jnp.float32)), 0.0)
    total = jnp.zeros(units).at[index].add(masking.everywhere(values))
    count = jnp.zeros(units).at[index].add(masking.everywhere(kept.astype(jnp.float32)))
    mean = (total / jnp.maximum(count, 1.0))[index]
    safe = jnp.where(kept, log_ratio.astype(jnp.float32), 0.0)
    return jnp.where(kept, safe - jax.lax.stop_gradient(safe) + mean, 0.0)


class Surrogate(NamedTuple):
    """The loss of each token, and where its gradient is held back."""

    loss: Float[Array, "*B"]
    clipped: Bool[Array, "*B"]


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

    For A < 0 and a large ratio the loss has no bound. Two ways to give it one, both off by default
    and both without effect on A > 0: `dual_clip` c > 1 bounds the loss by `−c A` (arXiv
    1912.09729), `ratio_cap` δ > 1 + clip_high bounds ρ in the unclipped term (two-sided clip, arXiv
    2505.07291).
    """
    checks.check_same_shape(log_ratio=log_ratio, advantages=advantages)
    _check_band(clip_low, clip_high)
    checks.check_range("dual_clip", dual_clip, 1.0, INFINITY, hint="3 is usual, None is off")
    if isinstance(clip_high, numbers.Real):
        checks.check_range(
            "ratio_cap", ratio_cap, 1.0 + float(clip_high), INFINITY, hint="4 is usual, None is off"
        )
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    ratio = jnp.exp(log_ratio.astype(jnp.float32))
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


def cispo(
    log_ratio: Float[Array, "*B"],
    policy_logprobs: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    clip_low: Scalar = 1.0,
    clip_high: Scalar = 0.28,
) -> Surrogate:
    """`loss = −sg(clip(ρ, 1 − clip_low, 1 + clip_high)) A log π` (CISPO, arXiv 2506.13585).

    Every token keeps its gradient, only its weight is bounded; `clip_low` 1 leaves the lower side
    open. `clipped` says where the weight is at a bound.
    """
    checks.check_same_shape(
        log_ratio=log_ratio, policy_logprobs=policy_logprobs, advantages=advantages
    )
    _check_band(clip_low, clip_high)
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    ratio = jax.lax.stop_gradient(jnp.exp(log_ratio.astype(jnp.float32)))
    weight = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -weight * advantages * policy_logprobs.astype(jnp.float32)
    return Surrogate(loss, (weight != ratio) & (advantages != 0))


def _check_band(clip_low: Scalar, clip_high: Scalar) -> None:
    checks.check_range("clip_low", clip_low, 0.0, 1.0, hint="the ratio is held above 1 - clip_low")
    checks.check_range(
        "clip_high", clip_high, 0.0, INFINITY, hint="the ratio is held below 1 + clip_high"
    )


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
    log_ratio = -_reference_log_ratios(policy_logprobs, reference_logprobs)
    return jnp.exp(log_ratio) - 1.0 - log_ratio


def _reference_log_ratios(policy_logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
    checks.check_same_shape(policy_logprobs=policy_logprobs, reference_logprobs=reference_logprobs)
    return log_ratios(policy_logprobs, reference_logprobs)


class ImportanceWeights(NamedTuple):
    """Weights for a loss on tokens that another policy sampled, and how much they vary."""

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

    `effective_share = (Σ w)² / (n Σ w²)`, taken before truncation: 1 when the implementations
    agree. Truncation from above only (TIS): small weights are right, they are just rare tokens of
    the learner.
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
