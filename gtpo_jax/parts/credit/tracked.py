"""A baseline that outlives a step: the success of each problem, tracked by a Beta distribution."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks, masking
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.types import EpisodeBatch, Scalar


class Tracker(NamedTuple):
    """Discounted counts of each slot of problems, each `[slots]`; their prior is included."""

    right: jax.Array
    wrong: jax.Array


def retention(
    drift: Scalar, *, half_life: Scalar = 0.06, lowest: Scalar = 0.875, highest: Scalar = 0.96
) -> jax.Array:
    """`q = clip(2^(−drift / half_life), lowest, highest)`: the part of old counts that stays."""
    return jnp.clip(jnp.exp2(-jnp.asarray(drift) / half_life), lowest, highest)


def minus_tracked_value(
    *, slots: int = 8192, drift: Scalar = 0.06, half_life: Scalar = 0.06, prior: Scalar = 0.5
) -> Credit:
    """`x − a / (a + b)` with the counts a, b of the problem before this step.

    x is a total reward, the same on all turns of a trajectory. Then `a ← q a + Σ r` and
    `b ← q b + Σ (1 − r)` over the trajectories of the problem, with `r = clip(x, 0, 1)` and `q` of
    `retention`; problems that a step does not meet keep their counts. A problem has the slot
    `id % slots`, which it may share with others.
    """
    check_tracker(slots, prior)

    def init() -> Tracker:
        return Tracker(jnp.full(slots, prior), jnp.full(slots, prior))

    def apply(
        state: Tracker, values: jax.Array, episodes: EpisodeBatch
    ) -> tuple[Tracker, jax.Array]:
        slot = masking.everywhere(jnp.asarray(facts.read(episodes, facts.PROBLEMS)) % slots)
        kept = masking.everywhere(groups.members(episodes))
        outcomes = masking.everywhere(jnp.clip(values[:, 0], 0.0, 1.0))
        estimates = (state.right / (state.right + state.wrong))[slot]

        def add(counts: jax.Array, x: jax.Array) -> jax.Array:
            return counts.at[slot].add(jnp.where(kept, x, 0.0).astype(counts.dtype))

        met = add(jnp.zeros_like(state.right), jnp.ones_like(outcomes)) > 0
        stays = jnp.where(met, retention(drift, half_life=half_life), 1.0).astype(state.right.dtype)
        new = Tracker(add(stays * state.right, outcomes), add(stays * state.wrong, 1.0 - outcomes))
        return new, values - estimates.astype(values.dtype)[:, None]

    return Credit(init, apply, (facts.PROBLEMS,))


def check_tracker(slots: int, prior: Scalar) -> None:
    """Raises unless there is a slot and the prior is positive."""
    checks.check_range("slots", slots, 1, float("inf"), hint="it counts problems to remember")
    checks.check_positive("prior", prior, hint="0.5 is the paper's count without data")
