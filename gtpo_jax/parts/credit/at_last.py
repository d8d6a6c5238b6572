"""Credit for the last turns alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import turns
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.types import EpisodeBatch


def at_last(credit: Credit) -> Credit:
    """The values of `credit` computed on the last turn of each trajectory; 0 on other turns."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        last = turns.last_turns(episodes.turn_mask)
        state, values = credit.apply(state, values, dataclasses.replace(episodes, turn_mask=last))
        return state, jnp.where(last, values, 0.0)

    return Credit(credit.init, apply, credit.facts)
