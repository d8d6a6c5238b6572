"""Rows that another term of the loss trains: they have no part in the credit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


def without(credit: Credit, fact: Fact) -> Credit:
    """The credit of the rows whose fact `[M]` is false; the others enter no statistics and get 0.

    Unlike `left_out`, which only takes their advantage away.
    """

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        out = jnp.asarray(facts.read(episodes, fact)).astype(bool)
        others = dataclasses.replace(episodes, included=episodes.included & ~out)
        state, values = credit.apply(state, values, others)
        return state, jnp.where(out[:, None], 0.0, values)

    return Credit(credit.init, apply, facts.union(credit.facts, (fact,)))
