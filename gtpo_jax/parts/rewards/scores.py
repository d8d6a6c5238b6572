"""A weighted sum of several scores of a trajectory, such as the heads of a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Trajectory

ScoreTrajectory = Callable[[Trajectory], Sequence[float]]
"""A function from a trajectory to its scores, equally many for every trajectory."""


def scores(function: ScoreTrajectory, weights: Sequence[float]) -> Reward:
    """`Σ_o w_o s_o` over the scores of a trajectory, on its last turn.

    Raises `ValueError` for more or fewer scores than weights, and for one that is not finite.
    """
    count = len(weights)

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        del max_turns
        values = np.zeros((len(trajectories), count), np.float32)
        for row, trajectory in enumerate(trajectories):
            if trajectory.turns and trajectory.included:
                given = [float(score) for score in function(trajectory)]
                if len(given) != count or not all(map(math.isfinite, given)):
                    raise ValueError(
                        f"each trajectory needs {count} finite scores, one for each weight, got"
                        f" {given} for problem {trajectory.problem.id!r}"
                    )
                values[row] = given
        return values

    fact = Fact("scores", gather, "[M, O] float32, scores of the trajectory")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        columns = as_float(facts.read(episodes, fact))
        return jnp.sum(columns * jnp.asarray(np.asarray(weights, float), float), axis=1)

    return whole(apply, fact)
