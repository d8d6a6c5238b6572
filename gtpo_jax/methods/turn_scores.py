"""Rewards of the environment for single turns."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import rewards


def turn_scores(*, weight: float = 1.0) -> Modifier:
    """The rewards that an environment gives to turns, added to the others.

    `r + weight · turn_scores[m, k]` on every turn. With group statistics by turn index they add a
    hidden bonus or malus for one more turn wherever the policy chooses when to stop.
    """
    part = rewards.turn_scores(weight)
    return lambda method: add_reward(method, "scores", part)
