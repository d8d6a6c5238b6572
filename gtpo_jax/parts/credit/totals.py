"""One value for all turns of a trajectory: its total reward, or the reward of its last turn."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.maths import turns
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch


def total() -> Credit:
    """`Σ_j x[m, j]` on every turn of trajectory m."""
    return stateless(lambda x, e: _sum_over(x, e, e.turn_mask), name="return")


def last_reward() -> Credit:
    """The value of the last turn of trajectory m on all its turns."""
    return stateless(lambda x, e: _sum_over(x, e, turns.last_turns(e.turn_mask)))


def _sum_over(values: jax.Array, episodes: EpisodeBatch, counted: jax.Array) -> jax.Array:
    values = jnp.where(counted, as_float(values), 0.0)
    return jnp.where(episodes.turn_mask, jnp.sum(values, axis=1, keepdims=True), 0.0)
