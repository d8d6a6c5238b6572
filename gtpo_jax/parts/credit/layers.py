"""Credit of corrections, the second layer of a group (multi-layer GRPO, arXiv 2506.04746)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.rows import times
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar


def over_parent(layers: Fact, parent_success: Fact) -> Credit:
    """`success_m − success_parent(m)` on all turns of a correction, x on first responses."""

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        second = jnp.asarray(facts.read(episodes, layers)) > 0
        before = jnp.asarray(facts.read(episodes, parent_success)).astype(x.dtype)
        gain = episodes.success.astype(x.dtype) - before
        return jnp.where(second[:, None], gain[:, None], x)

    return stateless(values, needs=(layers, parent_success))


def second_layer(layers: Fact, weight: Scalar) -> Credit:
    """`weight · x` on corrections, x on first responses."""
    checks.check_range("weight", weight, 0.0, math.inf, hint="it weighs corrections, 1 usual")

    def factor(episodes: EpisodeBatch) -> jax.Array:
        second = jnp.asarray(facts.read(episodes, layers)) > 0
        return jnp.where(second, weight, 1.0)

    return times(factor, needs=(layers,))
