"""Successes and failures of problems, counted over the steps of a run.

Baselines and the choice of prompts share them: both ask how often a problem was solved lately.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.types import Scalar


class Tracker(NamedTuple):
    """Discounted counts of each problem, or slot of problems, each `[N]` float32."""

    right: jax.Array
    wrong: jax.Array


def begin(count: int, *, prior: Scalar = 0.0) -> Tracker:
    """The counts before any trajectory: `prior` successes and as many failures."""
    return Tracker(jnp.full(count, prior, jnp.float32), jnp.full(count, prior, jnp.float32))


def rates(tracker: Tracker) -> jax.Array:
    """`a / (a + b)` of each problem, `[N]`; 0.5 where nothing was counted."""
    total = tracker.right + tracker.wrong
    return jnp.where(total > 0, tracker.right / jnp.where(total > 0, total, 1.0), 0.5)


def retention(
    drift: Scalar, *, half_life: Scalar = 0.06, lowest: Scalar = 0.875, highest: Scalar = 0.96
) -> jax.Array:
    """`q = clip(2^(−drift / half_life), lowest, highest)`: the part of old counts that stays."""
    return jnp.clip(jnp.exp2(-jnp.asarray(drift) / half_life), lowest, highest)


def count_outcomes(
    tracker: Tracker,
    slots: jax.Array,
    right: jax.Array,
    wrong: jax.Array,
    *,
    met: jax.Array,
    keep: Scalar,
    others: Scalar = 1.0,
    toward: Scalar = 0.0,
) -> Tracker:
    """`a ← c + q (a − c) + Σ right` and `b ← c + q (b − c) + Σ wrong`, with `c = toward`.

    The sums run over the entries `[M]` of a slot that are `met`; `q` is `keep` for slots that have
    such an entry, and `others` for the rest. Old counts shrink once, whatever the order of entries.
    """

    def add(counts: jax.Array, x: jax.Array) -> jax.Array:
        return counts.at[slots].add(jnp.where(met, x, 0.0).astype(counts.dtype))

    seen = add(jnp.zeros_like(tracker.right), jnp.ones_like(met, tracker.right.dtype)) > 0
    stays = jnp.where(seen, keep, others).astype(tracker.right.dtype)

    def shrunk(counts: jax.Array) -> jax.Array:
        return toward + stays * (counts - toward)

    return Tracker(add(shrunk(tracker.right), right), add(shrunk(tracker.wrong), wrong))
