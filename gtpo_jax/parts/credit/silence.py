"""No credit for groups that tell nothing apart."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import RELATIVE_THRESHOLD
from gtpo_jax.types import EpisodeBatch

Outcome = Literal["success", "reward"]


def nothing() -> Credit:
    """0 everywhere: rewards are recorded, and nothing is trained."""
    return stateless(lambda x, episodes: jnp.zeros_like(x))


def silence_equal_groups(outcome: Outcome = "success") -> Credit:
    """x, and 0 for groups whose included trajectories all have the same outcome.

    The outcome is the verdict, or the total reward of a trajectory before it is made credit.
    """

    def factor(episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        moments = rows.row_moments(_outcomes(episodes), sets.group, kept, episodes.group_ids)
        return (moments.std > RELATIVE_THRESHOLD * moments.largest).astype(moments.std.dtype)

    def _outcomes(episodes: EpisodeBatch) -> jax.Array:
        if outcome == "success":
            return episodes.success
        parts = facts.read(episodes, facts.REWARD_PARTS)
        return jnp.sum(sum(parts.values()), axis=1, where=episodes.turn_mask)

    return rows.times(factor, needs=(facts.REWARD_PARTS,) if outcome == "reward" else ())
