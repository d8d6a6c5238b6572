"""The score of the answer that a trajectory would give after each of its turns."""

from __future__ import annotations

import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward

BUDGET_SCORES = Fact(
    "budget_scores",
    None,
    "[M, K] float32, score of the answer if it had to be given after turn k",
    "a plan that asks for the answer after each turn provides it, or a function of your own",
)


def budget_scores() -> Reward:
    """`score[m, k]`, the score of an answer given after turn k."""
    return Reward(lambda e: jnp.asarray(facts.read(e, BUDGET_SCORES)), (BUDGET_SCORES,))
