"""GRPO and Dr.GRPO: one advantage for the whole trajectory (arXiv 2402.03300, 2503.20783)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.advantages import normalize
from gtpo_jax.advantages.inputs import check_inputs
from gtpo_jax.types import Scalar


def grpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = (r_m − mean_g(r)) / (std_g(r) + eps)`, `r_m = Σ_k turn_rewards[m, k]`, for all
    turns.

    A trajectory without turns enters no baseline.
    """
    check_inputs(turn_rewards, turn_mask, group_ids, included)
    total = jnp.sum(jnp.where(turn_mask, turn_rewards, 0.0), axis=1, keepdims=True)
    counted = included & jnp.any(turn_mask, axis=1)
    advantage = normalize.normalize_within_groups(
        total, counted[:, None], group_ids, divide_by_std=divide_by_std, ddof=ddof, eps=eps
    )
    return jnp.where(turn_mask, advantage, 0.0)


def dr_grpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
) -> Float[Array, "M K"]:
    """`A[m, k] = r_m − mean_g(r)`: GRPO without the division, which favors easy and hard prompts.

    The other half of Dr.GRPO is the reduction, `reductions.constant_length`.
    """
    return grpo_advantages(turn_rewards, turn_mask, group_ids, included, divide_by_std=False)
