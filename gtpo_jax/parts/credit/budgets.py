"""Credit for being right at any budget of turns."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import groups
from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless

Prior = Literal["uniform", "linear", "base"]


def budget_weights(
    budgets: Float[Array, " M"], max_budgets: int, prior: Prior
) -> Float[Array, "M {max_budgets}"]:
    """The probability of each budget `k = 1 … S`: equal, proportional to k, or all on the last."""
    index = jnp.arange(max_budgets, dtype=budgets.dtype)
    shape = {
        "uniform": jnp.ones_like(index)[None],
        "linear": (index + 1.0)[None],
        "base": (index == budgets[:, None] - 1.0).astype(budgets.dtype),
    }[prior]
    weights = jnp.where(index < budgets[:, None], shape, 0.0)
    return weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1.0)


def budget_advantages(
    scores: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    prior: Prior = "uniform",
) -> Float[Array, "M K"]:
    """`A[m, s] = R_s − (s V1_s + (S − s) V2_s) / S` for turn s from 0, of S turns.

    `R_s = Σ_{j ≥ s} p_j score_j`; `V1_s` predicts it from the row's own earlier scores,
    `(Σ_{j<s} 2^j score_j / Σ_{j<s} 2^j) Σ_{j ≥ s} p_j`; `V2_s` is its mean over the group. S counts
    the turns of the longest row of the group, and a shorter row keeps its last score.
    """
    index = jnp.arange(scores.shape[1])
    last = jnp.maximum(jnp.sum(turn_mask, axis=1) - 1, 0)[:, None]
    held = jnp.take_along_axis(as_float(scores), jnp.minimum(index, last), axis=1)
    held = jnp.where(jnp.any(turn_mask, axis=1, keepdims=True), held, 0.0)
    budgets = groups.largest(jnp.sum(turn_mask, axis=1), kept, group_ids).astype(held.dtype)
    weights = budget_weights(budgets, len(index), prior)

    def from_here(x: Array) -> Array:
        return jnp.cumsum(x[:, ::-1], axis=1)[:, ::-1]

    returns = from_here(weights * held)
    powers = jnp.broadcast_to(jnp.exp2(index.astype(held.dtype)), held.shape)
    earlier = jnp.cumsum(powers * held, axis=1) - powers * held
    own = earlier / jnp.maximum(jnp.cumsum(powers, axis=1) - powers, 1.0) * from_here(weights)
    counted = jnp.broadcast_to(kept[:, None], held.shape)
    peers = sets.turn_index(returns, counted, group_ids, 0).mean
    total = jnp.maximum(budgets, 1.0)[:, None]
    return jnp.where(turn_mask, returns - (index * own + (total - index) * peers) / total, 0.0)


def over_budgets(prior: Prior = "uniform") -> Credit:
    """`budget_advantages` of scores `x[m, k]`, each of an answer given after turn k."""
    return stateless(
        lambda x, e: budget_advantages(x, e.turn_mask, groups.members(e), e.group_ids, prior=prior)
    )
