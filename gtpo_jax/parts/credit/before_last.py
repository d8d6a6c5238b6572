"""Credit for the turns before the last one."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import turns
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.types import EpisodeBatch


def before_last(credit: Credit) -> Credit:
    """The values of `credit` computed without the last turn of each trajectory; 0 on that turn."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        earlier = episodes.turn_mask & ~turns.last_turns(episodes.turn_mask)
        state, values = credit.apply(
            state, values, dataclasses.replace(episodes, turn_mask=earlier)
        )
        return state, jnp.where(earlier, values, 0.0)

    return Credit(credit.init, apply, credit.facts)
