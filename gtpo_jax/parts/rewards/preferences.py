"""Preferences for longer prefixes as a reward (WS-GRPO, arXiv 2602.17025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.own import own
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Trajectory

PreferTurns = Callable[[Trajectory], Sequence[float]]
"""A function from a trajectory to one number in `[0, 1]` for each of its turns: the probability
that the trajectory up to and with the turn is better than without it."""

PREFERENCES = Fact(
    "prefix_preferences",
    None,
    "[M, K] float32, probability that the prefix with the turn beats the prefix before it",
    "a preference model computes it: pass prefer=my.module:function",
)


def preferences(prefer: PreferTurns | None = None) -> Reward:
    """The mean preference `mean_k p[m, k]` over the turns, on the last turn."""
    fact = PREFERENCES
    if prefer is not None:
        [gathered] = own(PREFERENCES.name, prefer).facts
        fact = PREFERENCES._replace(gather=gathered.gather, provider="")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        values = jnp.where(episodes.turn_mask, as_float(facts.read(episodes, fact)), 0.0)
        return jnp.sum(values, axis=1) / jnp.maximum(jnp.sum(episodes.turn_mask, axis=1), 1)

    return whole(apply, fact)
