"""GRPO: one advantage for the whole trajectory (arXiv 2402.03300)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.advantages import normalize


def grpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = (r_m − mean_g(r)) / (std_g(r) + eps)`, `r_m = Σ_k turn_rewards[m, k]`, the same
    for all turns. `divide_by_std=False` is the advantage of Dr.GRPO.
    """
    total = jnp.sum(jnp.where(turn_mask, turn_rewards, 0.0), axis=1, keepdims=True)
    advantage = normalize.normalize_within_groups(
        total,
        included[:, None],
        group_ids,
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
    )
    return jnp.where(turn_mask, advantage, 0.0)
