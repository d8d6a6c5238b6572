"""REINFORCE++: advantages on the scale of the whole batch (arXiv 2501.03262)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax import returns
from gtpo_jax.advantages import grpo, normalize
from gtpo_jax.advantages.inputs import check_inputs
from gtpo_jax.maths import masking
from gtpo_jax.types import Scalar


def reinforce_plus_plus_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    discount: Scalar = 1.0,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = (R[m, k] − mean(R)) / (std(R) + eps)`, statistics over all turns of the batch.

    The original discounts and whitens per *token*, so that a longer turn is discounted more and
    weighs more. Ours is per turn, like everything here; with one token a turn the two are equal.
    """
    check_inputs(turn_rewards, turn_mask, group_ids, included)
    turn_returns = returns.discounted_returns(turn_rewards, turn_mask, discount=discount)
    kept = turn_mask & included[:, None]
    return normalize.normalize_over_batch(turn_returns, kept, group_ids, ddof=ddof, eps=eps)


def reinforce_plus_plus_baseline_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = a_m / (std(a) + eps)`, `a_m = r_m − mean_g(r)`, std over all trajectories.

    Differences within a group, on a scale common to all groups. Their mean over the batch is 0 and
    is not taken away once more: its rounding would give equal groups an advantage.
    """
    centered = grpo.dr_grpo_advantages(turn_rewards, turn_mask, group_ids, included)
    normalize.check_options(ddof, eps)
    counted = (included & jnp.any(turn_mask, axis=1))[:, None]
    batch = jnp.zeros_like(group_ids)
    moments = masking.group_moments(centered[:, :1], counted, batch, ddof=ddof)
    informative = (moments.std > 0) & (moments.count > ddof)
    return jnp.where(informative[:, None], centered / (moments.std + eps)[:, None], 0.0)
