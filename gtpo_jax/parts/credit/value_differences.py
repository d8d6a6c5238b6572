"""Differences of the values of turn boundaries that a plan has estimated."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.value_head import gae
from gtpo_jax.types import EpisodeBatch

TURN_VALUES = facts.turns_from_plan(
    "turn_values",
    "[M, K] float32, estimated total reward of what stands before the turn",
    provider="the plan `plans.valued` records it",
)


def value_differences() -> Credit:
    """`A[m, k] = r[m, k] + V(s[m, k+1]) − V(s[m, k])`, where V is 0 after the last turn.

    V is the fact `turn_values`: estimates that do not depend on the turns after their boundary.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        known = jnp.asarray(facts.read(episodes, TURN_VALUES)).astype(x.dtype)
        return gae(x, known, episodes.turn_mask, discount=1.0, trace=0.0)

    return stateless(values, needs=(TURN_VALUES,))
