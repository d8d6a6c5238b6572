"""Rewards of trajectories by their share of the entropy (GRPO-S of Tan, arXiv 2508.04349)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar


def shared_rewards(
    rewards: Float[Array, " M"],
    entropies: Float[Array, " M"],
    counted: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    base: Scalar = 1.0,
    weight: Scalar = 0.1,
    floor: Scalar = 0.2,
) -> Float[Array, " M"]:
    """`base · r_i + weight · n H_i / Σ_{k ∈ O⁺} H_k` if `r_i > 0`, else
    `−base − weight · m (1 / H_i) / Σ_{k ∈ O⁻} (1 / H_k)`.

    O⁺ holds the n rewarded trajectories of the group, O⁻ the m others; rows outside `counted` are
    in neither and get 0. Entropies below `floor` count as `floor` in O⁻, where they are divided by.
    """
    right = rewards > 0
    inverse = 1.0 / jnp.maximum(entropies, floor)
    gains = _relative(entropies, counted & right, group_ids)
    losses = _relative(inverse, counted & ~right, group_ids)
    shaped = jnp.where(right, base * rewards + weight * gains, -base - weight * losses)
    return jnp.where(counted, shaped, 0.0)


def _relative(x: jax.Array, mask: jax.Array, group_ids: jax.Array) -> jax.Array:
    """`x_i / mean(x)` over the rows of the group in `mask`; 1 where all x are 0."""
    mean = rows.row_moments(x, sets.group, mask, group_ids).mean
    return jnp.where(mean > 0, x / jnp.where(mean > 0, mean, 1.0), 1.0)


def mixed_groups(
    right: Bool[Array, " M"], counted: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Bool[Array, " M"]:
    """True for the rows of groups in which some counted rows are right and some are not."""
    share = rows.row_moments(right, sets.group, counted, group_ids).mean
    return (share > 0) & (share < 1)


def shared_by_entropy(
    *, base: Scalar = 1.0, weight: Scalar = 0.1, floor: Scalar = 0.2, silent: bool = True
) -> Credit:
    """`shared_rewards` of trajectories, of which each turn holds the total reward.

    `silent` gives the same reward to all of a group whose members are all right or all wrong.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        entropies = rows.read_mean_of_tokens(episodes, facts.TURN_ENTROPIES)
        counted = groups.members(episodes)
        rewards = as_float(x)[:, 0]
        options = {"base": base, "weight": weight, "floor": floor}
        shaped = shared_rewards(rewards, entropies, counted, episodes.group_ids, **options)
        if silent:
            mixed = mixed_groups(rewards > 0, counted, episodes.group_ids)
            shaped = jnp.where(mixed, shaped, 0.0)
        return jnp.where(episodes.turn_mask, shaped[:, None], 0.0)

    return stateless(values, needs=(facts.TURN_ENTROPIES, facts.TURN_TOKENS))
