"""Baselines of a group other than its mean: weighted by length, soft, or shifted; and none."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import normalize
from gtpo_jax.types import EpisodeBatch, Scalar


def minus_weighted_mean() -> Credit:
    """`x − Σ_i l_i x_i / Σ_i l_i` over the trajectories of the group, `l_i` tokens long: the
    baseline of least variance if scores grow like lengths (OPO, arXiv 2505.23585).

    The value of a trajectory is that of its first turn. Exactly 0 where all values are equal.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        lengths = as_float(facts.read(episodes, facts.RESPONSE_TOKENS))
        centered = normalize(
            x, _kept_turns(episodes), episodes.group_ids, over=sets.first_turn, divide_by_std=False
        )
        total = groups.total(lengths, kept, episodes.group_ids)
        first = jnp.where(kept, centered[:, 0], 0.0)
        weighted = groups.total(lengths * first, kept, episodes.group_ids)
        return centered - (weighted / jnp.maximum(total, 1.0))[:, None]

    return stateless(values, needs=(facts.RESPONSE_TOKENS,))


def minus_log_mean_exp(temperature: Scalar = 1.0) -> Credit:
    """`x − τ log((1 / n) Σ_i exp(x_i / τ))` over the n trajectories of the group (OPMD, arXiv
    2505.17826). The mean for τ → ∞, the largest value for τ → 0.

    The value of a trajectory is that of its first turn.
    """
    checks.check_positive("temperature", temperature, hint="1 is the authors'")

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept, ids = groups.members(episodes), episodes.group_ids
        first = jnp.where(kept, as_float(x)[:, 0], 0.0)
        largest = groups.largest(first, kept, ids)
        # Of numbers near 1 for a high temperature only what they differ from 1 is exact.
        mean = groups.mean(jnp.expm1((first - largest) / temperature), kept, ids)
        baseline = largest + temperature * jnp.log1p(mean)
        return x - baseline[:, None]

    return stateless(values)


def raised(by: Scalar) -> Credit:
    """`x + by` on every turn: a baseline that is lower by this (AsymRE's shift)."""
    return stateless(lambda x, e: jnp.where(_kept_turns(e), as_float(x) + by, 0.0))


def positive() -> Credit:
    """`max(x, 0)`: nothing is learned from what went wrong."""
    return stateless(lambda x, e: jnp.maximum(as_float(x), 0.0))


def _kept_turns(episodes: EpisodeBatch) -> jax.Array:
    return episodes.turn_mask & episodes.included[:, None]
