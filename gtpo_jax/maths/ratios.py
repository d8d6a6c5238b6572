"""Log-ratios of probabilities: of tokens, and of units of tokens.

Gradients stop at the log-probs of the behavior policy, always.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float

Aggregate = Literal["mean", "sum", "max"]
"""How values of the trained tokens of a unit become one."""

LOG_RATIO_BOUND = 20.0
"""Bound of log-ratios before `exp`: a guard against overflow, far outside every trust region. It
stops the gradient outside."""


def log_ratios(
    policy_logprobs: Float[Array, "*B"], behavior_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`log π(token) − log μ(token)`, bounded by ±`LOG_RATIO_BOUND`; no gradient reaches μ."""
    checks.check_same_shape(policy_logprobs=policy_logprobs, behavior_logprobs=behavior_logprobs)
    difference = as_float(policy_logprobs) - jax.lax.stop_gradient(as_float(behavior_logprobs))
    return jnp.clip(difference, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def bound_binds(log_ratio: Float[Array, "*B"]) -> Bool[Array, "*B"]:
    """True where `LOG_RATIO_BOUND` cut a log-ratio: the two policies have nothing in common."""
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
    `unit_ids = trajectory_ids * max_turns + turn_ids`); ids are in `[0, units)`, and tokens with
    negative ids belong to no unit. The value is the unit's, the gradient each token's own.
    Untrained tokens get 0.
    """
    checks.check_same_shape(log_ratio=log_ratio, loss_mask=loss_mask, unit_ids=unit_ids)
    mean = unit_values(log_ratio, loss_mask, unit_ids, units=units)
    kept = loss_mask & (unit_ids >= 0)
    safe = jnp.where(kept, as_float(log_ratio), 0.0)
    return jnp.where(kept, safe - jax.lax.stop_gradient(safe) + mean, 0.0)


def unit_values(
    values: Float[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    unit_ids: Int[Array, "B T"],
    *,
    units: int,
    how: Aggregate = "mean",
) -> Float[Array, "B T"]:
    """The mean, sum or maximum of a value over the trained tokens of each token's unit, on every
    position of it; 0 for a unit without trained tokens.

    Units are those of `unit_log_ratios`. No gradient flows through it.
    """
    checks.check_same_shape(values=values, loss_mask=loss_mask, unit_ids=unit_ids)
    checks.check_masks(loss_mask=loss_mask)
    kept = loss_mask & (unit_ids >= 0)
    index = masking.everywhere(jnp.maximum(unit_ids, 0))
    values = jax.lax.stop_gradient(as_float(values))
    if how == "max":
        known = masking.everywhere(jnp.where(kept, values, -jnp.inf))
        largest = jnp.full(units, -jnp.inf, values.dtype).at[index].max(known)
        return jnp.where(jnp.isneginf(largest), 0.0, largest)[index]
    values = jnp.where(kept, values, 0.0)
    total = jnp.zeros(units, values.dtype).at[index].add(masking.everywhere(values))
    if how == "sum":
        return total[index]
    count = jnp.zeros(units).at[index].add(masking.everywhere(kept.astype(jnp.float32)))
    return (total / jnp.maximum(count, 1.0))[index]
