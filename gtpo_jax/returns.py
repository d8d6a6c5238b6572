"""Discounted returns over turns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def discounted_returns(
    turn_rewards: Float[Array, "M K"], turn_mask: Bool[Array, "M K"], *, discount: float
) -> Float[Array, "M K"]:
    """`R[m, k] = r[m, k] + discount · R[m, k+1]`, that is
    Σ_{j ≥ k} discount^(j−k) r[m, j] (GTPO, Eq. 6).

    The discount counts turns: neither the tokens of a turn nor the tool output between turns weigh
    in. Turns outside `turn_mask` have return 0.
    """
    rewards = jnp.where(turn_mask, turn_rewards.astype(jnp.float32), 0.0)

    def step(later: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = reward + discount * later
        return total, total

    _, returns = jax.lax.scan(step, jnp.zeros_like(rewards[:, 0]), rewards.T, reverse=True)
    return jnp.where(turn_mask, returns.T, 0.0)
