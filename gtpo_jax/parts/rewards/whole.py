"""A reward of the whole trajectory, and a reward times a number."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax.parts import groups
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.outcome import outcome_rewards
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar


def whole(function: Callable[[EpisodeBatch], jax.Array], *needs: Fact) -> Reward:
    """`function(episodes)`, one value `[M]` per trajectory, on the last turn.

    An excluded trajectory earns 0. `needs` are the facts that the function reads.
    """

    def apply(episodes: EpisodeBatch) -> jax.Array:
        values = jnp.where(groups.members(episodes), function(episodes), 0.0)
        return outcome_rewards(values, episodes.turn_mask)

    return Reward(apply, needs)


def weighted(weight: Scalar, reward: Reward) -> Reward:
    """`weight` times a reward."""
    return Reward(lambda episodes: weight * reward.apply(episodes), reward.facts)
