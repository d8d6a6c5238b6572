"""The quality of a plan: the success of the trajectories that follow it (arXiv 2510.01833)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import masking
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch

PLANS = Fact(
    "plans",
    facts.of_trajectories(
        lambda t: facts.text_id(t.problem.id, t.turns[0].text) if t.turns else 0, np.int32
    ),
    "[M] int32, id of the problem and the text of the first turn, which is the plan",
)


def same_plan(
    plans: Int[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Bool[Array, "M M"]:
    """`out[i, j]`: rows i and j of one group have one plan, and row j is kept."""
    return groups.pairs(group_ids, kept) & groups.pairs(plans, kept)


def plan_quality(
    success: Bool[Array, " M"],
    plans: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
) -> Float[Array, " M"]:
    """The share of successes among the kept rows of the group with the row's plan."""
    same = same_plan(plans, kept, group_ids)
    hits = jnp.sum(jnp.where(same & masking.everywhere(success), 1.0, 0.0), axis=1)
    return hits / jnp.maximum(jnp.sum(same, axis=1), 1)


def quality_of(episodes: EpisodeBatch) -> jax.Array:
    """`plan_quality` of every row of the episodes, `[M]`."""
    plans = jnp.asarray(facts.read(episodes, PLANS))
    return plan_quality(episodes.success, plans, groups.members(episodes), episodes.group_ids)


def planned() -> Reward:
    """The quality of the trajectory's plan, on its last turn; see `plan_quality`."""
    return whole(quality_of, PLANS)
