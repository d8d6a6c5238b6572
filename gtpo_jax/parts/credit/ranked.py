"""Ranks: rewards discounted by the position of a turn, compared at the same position."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import groups
from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import check_options, normalize
from gtpo_jax.types import EpisodeBatch, Scalar


def rank_returns(
    turn_rewards: Float[Array, "M K"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, "M K"]:
    """`R[m, k] = Σ_{j ≥ k} r[m, j] / log2(j + 1)` with k and j from 1, 0 outside `turn_mask`.

    The discount belongs to the position j, as in the discounted cumulative gain of a ranking.
    """
    gains = 1.0 / jnp.log2(jnp.arange(turn_rewards.shape[1]) + 2.0)
    earned = jnp.where(turn_mask, as_float(turn_rewards) * gains, 0.0)
    returns = jnp.cumsum(earned[:, ::-1], axis=1)[:, ::-1]
    return jnp.where(turn_mask, returns, 0.0)


def ranked() -> Credit:
    """The discounted gain from each turn on; see `rank_returns`."""
    return stateless(lambda x, e: rank_returns(x, e.turn_mask), name="return")


def standardized_by_rank(
    *, missing: Literal["zero", "skip"] = "zero", ddof: int = 1, eps: Scalar = 1e-4
) -> Credit:
    """`(x − mean) / (std + eps)` over turn k of the rows of the group.

    A row that has no turn k counts as 0 there, or with `skip` does not count.
    """
    check_options(ddof, eps)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        counted = episodes.turn_mask & episodes.included[:, None]
        if missing == "zero":
            counted = jnp.broadcast_to(groups.members(episodes)[:, None], x.shape)
        scores = normalize(
            jnp.where(episodes.turn_mask, x, 0.0),
            counted,
            episodes.group_ids,
            over=sets.turn_index,
            ddof=ddof,
            eps=eps,
        )
        return jnp.where(episodes.turn_mask, scores, 0.0)

    return stateless(values)
