"""Silencing groups whose trajectories all earned the same."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax import masking


def silence_equal_groups(
    turn_advantages: Float[Array, "M K"],
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    relative_threshold: float = 1e-5,
) -> Float[Array, "M K"]:
    """The advantages, exactly 0 in groups whose included trajectories have equal total rewards.

    With a discount below 1, trajectories that all succeed still differ in their turn *returns*:
    early turns lie further from the reward. Divided by the group's small standard deviation, that
    difference becomes a full-sized push against early turns, although nothing distinguishes the
    trajectories. The paper does not treat this case; judging by undiscounted totals is our choice.
    """
    total = jnp.sum(jnp.where(turn_mask, turn_rewards, 0.0), axis=1, keepdims=True)
    moments = masking.group_moments(total, included[:, None], group_ids)
    differ = moments.std > relative_threshold * moments.largest
    return jnp.where(differ[:, None], turn_advantages, 0.0)
