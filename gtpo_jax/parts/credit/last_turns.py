"""Credit for the last turns alone, or for the turns before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import turns
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.types import EpisodeBatch


def before_last(credit: Credit) -> Credit:
    """The values of `credit` computed without the last turn of each trajectory; 0 on that turn."""
    return _among(credit, lambda mask: mask & ~turns.last_turns(mask))


def at_last(credit: Credit) -> Credit:
    """The values of `credit` computed on the last turn of each trajectory; 0 on other turns."""
    return _among(credit, turns.last_turns)


def _among(credit: Credit, choose: Callable[[jax.Array], jax.Array]) -> Credit:
    """The values of `credit` for the turns of a mask `[M, K]` as if there were no others."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        chosen = choose(episodes.turn_mask)
        state, values = credit.apply(state, values, dataclasses.replace(episodes, turn_mask=chosen))
        return state, jnp.where(chosen, values, 0.0)

    return Credit(credit.init, apply, credit.facts)
