"""Outcomes of main and sub agents (M-GRPO, arXiv 2511.13288)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Scalar

PROVIDER = "a plan with sub-agents records it, such as that of `m_grpo`"
AGENTS = facts.from_plan(
    "agents", "[M] int32, number of the agent of the row, 0 = main", provider=PROVIDER
)
PARENTS = facts.from_plan(
    "parents",
    "[M] int32, a number that a main row shares with its sub rows only, such as the main row's"
    " index",
    provider=PROVIDER,
)


def agent_outcomes(
    success: Bool[Array, " M"],
    invalid: Bool[Array, " M"],
    agents: Int[Array, " M"],
    parents: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    floor: Scalar,
) -> Float[Array, " M"]:
    """Main row: 0 if invalid, 1 if right, else `floor`. Sub row: 0 if invalid itself, else the
    larger of `floor` and its main row's.

    The main row of a sub row is the row of agent 0 in its group with an equal number in `parents`.
    If none is kept, its outcome is unknown and the sub row earns `floor`.
    """
    main = jnp.where(invalid, 0.0, jnp.where(success, 1.0, floor))
    above = groups.pairs(group_ids, kept & (agents == 0)) & groups.pairs(parents, kept)
    earned = jnp.max(jnp.where(above, masking.everywhere(main), 0.0), axis=1, initial=0.0)
    sub = jnp.where(invalid, 0.0, jnp.maximum(earned, floor))
    return jnp.where(agents == 0, main, sub)


def agent_outcome(floor: Scalar = 0.1) -> Reward:
    """The outcome of a main or sub row, on its last turn; see `agent_outcomes`. A row is invalid if
    one of its turns broke the rules of the dialogue.
    """
    checks.check_range("floor", floor, 0.0, 1.0, hint="a valid failure earns it, 0.1 is usual")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        return agent_outcomes(
            episodes.success,
            jnp.any(episodes.violations & episodes.turn_mask, axis=1),
            jnp.asarray(facts.read(episodes, AGENTS)),
            jnp.asarray(facts.read(episodes, PARENTS)),
            groups.members(episodes),
            episodes.group_ids,
            floor=floor,
        )

    return whole(apply, AGENTS, PARENTS)
