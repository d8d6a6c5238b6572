"""Rewards that the environment gives to turns."""

from __future__ import annotations

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import Scalar

TURN_SCORES = Fact(
    "turn_scores",
    None,
    "[M, K] float32, reward that the environment gives to the turn",
    "an environment that scores turns provides it",
)


def turn_scores(weight: Scalar = 1.0) -> Reward:
    """`weight · turn_scores[m, k]` on every turn."""
    return Reward(lambda e: weight * as_float(facts.read(e, TURN_SCORES)), (TURN_SCORES,))
