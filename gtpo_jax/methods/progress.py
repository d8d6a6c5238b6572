"""Progress: turns earn the change of a score of the state."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import rewards


def progress(
    *,
    function: rewards.StateScores | None = None,
    weight: float = 1.0,
    start: float | None = 0.0,
    smear: float = 0.0,
) -> Modifier:
    """Progress differences: a turn earns the change of a score of the state after it.

    `r + weight · (Φ[m, k] − Φ[m, k−1])`, `Φ[m, −1] = start`. The rewards of a trajectory add up to
    `weight · (Φ_last − start)`, so with a discount of 1 the way to a state does not matter.

    `function(trajectory)` gives a score for each turn, or None for a turn that is not scored, whose
    change counts to the next turn that is; without it, the environment provides scores. With
    `start=None` the first score is the start. `smear` γ > 0 divides a change among its turn and the
    turns before it, in proportion to `γ^distance`.
    """
    fact = rewards.PROGRESS if function is None else rewards.scores_by(function)
    part = rewards.progress(fact, weight=weight, start=start, smear=smear)
    return lambda method: add_reward(method, "progress", part)
