"""A baseline that outlives a step: the success of each problem, tracked by a Beta distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks, masking
from gtpo_jax.parts import counts, facts, groups
from gtpo_jax.parts.counts import Tracker, retention
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.types import EpisodeBatch, Scalar


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
        return counts.begin(slots, prior=prior)

    def apply(
        state: Tracker, values: jax.Array, episodes: EpisodeBatch
    ) -> tuple[Tracker, jax.Array]:
        slot = masking.everywhere(jnp.asarray(facts.read(episodes, facts.PROBLEMS)) % slots)
        kept = masking.everywhere(groups.members(episodes))
        outcomes = masking.everywhere(jnp.clip(values[:, 0], 0.0, 1.0))
        estimates = counts.rates(state)[slot]

        new = counts.count_outcomes(
            state,
            slot,
            outcomes,
            1.0 - outcomes,
            met=kept,
            keep=retention(drift, half_life=half_life),
        )
        return new, values - estimates.astype(values.dtype)[:, None]

    return Credit(init, apply, (facts.PROBLEMS,))


def check_tracker(slots: int, prior: Scalar) -> None:
    """Raises unless there is a slot and the prior is positive."""
    checks.check_range("slots", slots, 1, float("inf"), hint="it counts problems to remember")
    checks.check_positive("prior", prior, hint="0.5 is the paper's count without data")
