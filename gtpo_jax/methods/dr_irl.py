"""DR-IRL: advantages weighed by the difficulty of the data and of the model."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit, facts
from gtpo_jax.types import Trajectory


def dr_irl(
    *,
    tau: float = 1.0,
    distance: Callable[[Trajectory], float] | None = None,
    gap: Callable[[Trajectory], float] | None = None,
) -> Modifier:
    """GRPO-S of DR-IRL (arXiv 2503.18991): larger advantages far from the demonstration.

    `A'[m, k] = A[m, k] · σ(d_m) / σ(mean(d)) · σ(mean_near(g)) / σ(mean(g))`, where d is the
    distance of the response to the demonstration, g the reward of the demonstration minus that of
    the response, and near the rows with `(g − mean(g))² ≤ tau`.

    Unknown: `tau`, 1 is chosen, and the set of the means, here the included rows of the batch. The
    second factor is then the same for all rows. `distance` and `gap` are functions of your own of a
    trajectory; without them an environment has to provide both facts. The reward model that the
    paper learns from demonstrations is not part of this modifier.
    """
    link = credit.times_hardness(
        tau=tau,
        distance=facts.measured(credit.DEMONSTRATION_DISTANCE, distance),
        gap=facts.measured(credit.DEMONSTRATION_GAP, gap),
    )
    return lambda method: add_link(method, link)
