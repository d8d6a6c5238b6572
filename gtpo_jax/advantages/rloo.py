"""RLOO: every trajectory against the mean of the others (arXiv 2402.14740)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.advantages import grpo
from gtpo_jax.maths import masking


def rloo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
) -> Float[Array, "M K"]:
    """`A[m, k] = r_m − mean_{j ≠ m}(r_j)`, over the n included trajectories of the group.

    Equals `n / (n − 1) · (r_m − mean_g(r))`. A trajectory without others has nothing to be compared
    with: its advantage is 0.
    """
    centered = grpo.dr_grpo_advantages(turn_rewards, turn_mask, group_ids, included)
    counted = (included & jnp.any(turn_mask, axis=1))[:, None]
    count = masking.group_moments(centered[:, :1], counted, group_ids).count
    return centered * (count / jnp.maximum(count - 1.0, 1.0))[:, None]
