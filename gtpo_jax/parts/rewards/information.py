"""Rewards for turns that make the right answer likelier (IGPO, arXiv 2510.14967)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import turns
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch


def information_gains(
    after: Float[Array, "M K"], before: Float[Array, " M"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, "M K"]:
    """`p[m, k] − p[m, k−1]` on every turn but the last, where `p = exp(mean log-prob)` of the right
    answer after a turn, and `p[m, −1]` is its value before the first one.
    """
    chances = jnp.exp(as_float(after))
    earlier = jnp.concatenate([jnp.exp(as_float(before))[:, None], chances[:, :-1]], axis=1)
    return jnp.where(turn_mask & ~turns.last_turns(turn_mask), chances - earlier, 0.0)


def information_gain() -> Reward:
    """The change of the probability of the right answer; see `information_gains`."""

    def apply(episodes: EpisodeBatch) -> jax.Array:
        after = facts.read(episodes, facts.ANSWER_LOGPROBS)
        before = facts.read(episodes, facts.ANSWER_LOGPROBS_BEFORE)
        return information_gains(after, before, episodes.turn_mask)

    return Reward(apply, (facts.ANSWER_LOGPROBS, facts.ANSWER_LOGPROBS_BEFORE))
