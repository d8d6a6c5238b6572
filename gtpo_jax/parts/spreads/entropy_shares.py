"""Rewards of tokens by their share of the entropy (GTPO of Tan, arXiv 2508.04349)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.credit.entropy_shares import mixed_groups
from gtpo_jax.parts.credit.standardized import check_options, normalize
from gtpo_jax.parts.spreads.spread import Spread, Written
from gtpo_jax.types import EpisodeBatch, Scalar


def token_rewards(
    rewards: Float[Array, " M"],
    entropies: Float[Array, "M L"],
    mask: Bool[Array, "M L"],
    group_ids: Int[Array, " M"],
    *,
    base: Scalar = 1.0,
    weight: Scalar = 0.1,
    floor: Scalar = 0.2,
) -> Float[Array, "M L"]:
    """The reward of token t of trajectory i, 0 outside `mask`:

    `base · r_i + weight · d_t H_it / Σ_{k ∈ O⁺} H_kt` if `r_i > 0`, else
    `−base − weight · h_t (1 / H_it) / Σ_{k ∈ O⁻} (1 / H_kt)`.

    O⁺ holds the rewarded trajectories of the group and O⁻ the others; d_t and h_t of them have a
    token t. Entropies below `floor` count as `floor` in O⁻, where they are divided by.
    """
    right = (rewards > 0)[:, None]
    entropies = as_float(entropies)
    gains = _shares(entropies, mask & right, group_ids)
    losses = _shares(1.0 / jnp.maximum(entropies, floor), mask & ~right, group_ids)
    values = jnp.where(
        right, base * as_float(rewards)[:, None] + weight * gains, -base - weight * losses
    )
    return jnp.where(mask, values, 0.0)


def _shares(x: jax.Array, mask: jax.Array, group_ids: jax.Array) -> jax.Array:
    """`x_it n_t / Σ_k x_kt` over the n_t rows of the group in `mask`; 1 where all x are 0."""
    group_ids = masking.everywhere(group_ids)

    def per_group(values: jax.Array) -> jax.Array:
        rows = masking.everywhere(values)
        return jax.ops.segment_sum(rows, group_ids, num_segments=len(values))[group_ids]

    total = per_group(jnp.where(mask, x, 0.0))
    number = per_group(mask.astype(x.dtype))
    share = x * number / jnp.where(total > 0, total, 1.0)
    return jnp.where(mask, jnp.where(total > 0, share, 1.0), 0.0)


def by_entropy(
    *,
    base: Scalar = 1.0,
    weight: Scalar = 0.1,
    floor: Scalar = 0.2,
    apart: bool = False,
    silent: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Spread:
    """`(r̃_it − mean) / (std + eps)` over the tokens of the group, see `token_rewards`; the reward
    of a trajectory is what the credit hands over for it.

    `apart` takes mean and std over the tokens of O⁺ and of O⁻ each by itself. `silent` gives 0 to
    groups without both.
    """
    check_options(ddof, eps)

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        mask = (jnp.asarray(written.turn_ids) >= 0) & episodes.included[:, None]
        rewards = jnp.where(jnp.any(mask, axis=1), as_float(advantages)[:, 0], 0.0)
        options = {"base": base, "weight": weight, "floor": floor}
        values = token_rewards(rewards, written.entropies, mask, episodes.group_ids, **options)

        def scores(chosen: jax.Array) -> jax.Array:
            return normalize(values, chosen, episodes.group_ids, ddof=ddof, eps=eps)

        right = (rewards > 0)[:, None]
        scored = scores(mask & right) + scores(mask & ~right) if apart else scores(mask)
        if silent:
            present = jnp.any(mask, axis=1)
            mixed = mixed_groups(right[:, 0], present, episodes.group_ids)
            scored = jnp.where(mixed[:, None], scored, 0.0)
        return scored

    return spread
