"""Discounted returns over turns: a reverse recursion, and the closed form of the same sum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import Scalar


def discounted(discount: Scalar) -> Credit:
    """The discounted return of each turn; see `discounted_returns`."""
    check_discount(discount)
    return stateless(
        lambda x, e: discounted_returns(x, e.turn_mask, discount=discount), name="return"
    )


def discounted_returns(
    turn_rewards: Float[Array, "M K"], turn_mask: Bool[Array, "M K"], *, discount: Scalar
) -> Float[Array, "M K"]:
    """`R[m, k] = r[m, k] + discount · R[m, k+1] = Σ_{j ≥ k} discount^(j−k) r[m, j]` (GTPO, Eq. 6).

    The discount counts turns: neither the tokens of a turn nor the tool output between turns
    matter. Turns outside `turn_mask` have return 0.
    """
    rewards = _rewards(turn_rewards, turn_mask, discount)

    def step(later: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = reward + discount * later
        return total, total

    _, returns = jax.lax.scan(step, jnp.zeros_like(rewards[:, 0]), rewards.T, reverse=True)
    return jnp.where(turn_mask, returns.T, 0.0)


def discounted_returns_closed_form(
    turn_rewards: Float[Array, "M K"], turn_mask: Bool[Array, "M K"], *, discount: Scalar
) -> Float[Array, "M K"]:
    """The same as a product: `R = r Γ`, `Γ[j, k] = discount^(j−k)` for j ≥ k, else 0.

    One matrix multiplication of K² products instead of K steps, which is faster on an accelerator
    for a few turns.
    """
    rewards = _rewards(turn_rewards, turn_mask, discount)
    index = jnp.arange(rewards.shape[1])
    ahead = index[:, None] - index
    # As products: the derivative of `power` is NaN at discount 0.
    factors = jnp.where(index > 0, jnp.asarray(discount, rewards.dtype), 1.0)
    gamma = jnp.where(ahead >= 0, jnp.cumprod(factors)[jnp.maximum(ahead, 0)], 0.0)
    returns = jnp.einsum("mj,jk->mk", rewards, gamma, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(turn_mask, returns, 0.0)


def _rewards(turn_rewards: jax.Array, turn_mask: jax.Array, discount: Scalar) -> jax.Array:
    checks.check_turns(turn_rewards=turn_rewards, turn_mask=turn_mask)
    checks.check_masks(turn_mask=turn_mask)
    check_discount(discount)
    return jnp.where(turn_mask, as_float(turn_rewards), 0.0)


def check_discount(discount: Scalar) -> None:
    """Raises unless the discount is in `[0, 1]`."""
    checks.check_range(
        "discount", discount, 0.0, 1.0, hint="it weighs the next turn, 1 counts all turns alike"
    )
