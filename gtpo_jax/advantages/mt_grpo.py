"""MT-GRPO: the outcome for every turn, plus each turn's own reward (arXiv 2505.11821)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.advantages import normalize
from gtpo_jax.advantages.inputs import check_inputs
from gtpo_jax.maths import turns
from gtpo_jax.types import Scalar


def mt_grpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    turn_weight: Scalar = 1.0,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = A_outcome[m] + turn_weight · A_turn[m, k]`, the second part not on the last turn.

    `A_outcome` normalizes the reward of the last turn within the group, `A_turn` that of turn k
    within turn k of the group. Rewards are not discounted, and a turn has no part in those of later
    turns.

    The paper has two turns, and this is its formula for them. For more turns the sum over each
    turn's own reward is our reading. So is the trajectory of a single turn, whose one reward is the
    outcome.
    """
    check_inputs(turn_rewards, turn_mask, group_ids, included)
    kept = turn_mask & included[:, None]
    last = turns.last_turns(turn_mask)
    outcome = jnp.sum(jnp.where(last, turn_rewards, 0.0), axis=1, keepdims=True)
    counted = included & jnp.any(turn_mask, axis=1)
    outcome_advantage = normalize.normalize_within_groups(
        outcome, counted[:, None], group_ids, ddof=ddof, eps=eps
    )
    turn_advantage = normalize.normalize_within_turn_index(
        turn_rewards, kept & ~last, group_ids, ddof=ddof, eps=eps
    )
    return jnp.where(kept, outcome_advantage + turn_weight * turn_advantage, 0.0)
