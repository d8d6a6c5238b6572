"""Rows that count in statistics and are not trained on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


def left_out(fact: Fact) -> Credit:
    """0 on all turns of a trajectory whose fact `[M]` is true; as the last link, such rows count in
    the statistics of others and have no part in the loss.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        return jnp.where(jnp.asarray(facts.read(episodes, fact))[:, None], 0.0, x)

    return stateless(values, needs=(fact,))
