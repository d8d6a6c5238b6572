"""Custom rewards: a Python function of a trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import Scalar, Trajectory

TrajectoryReward = Callable[[Trajectory], float | Sequence[float]]
"""A function from a trajectory to its reward, or to one number for each of its turns.

The trajectory has texts, code and results of the turns, the answer, the verdict, and
`problem.info`, the further fields of the problem's record."""


def own(name: str, function: TrajectoryReward, *, weight: Scalar = 1.0) -> Reward:
    """`weight · function(trajectory)`: on the last turn, or on every turn if the function returns a
    sequence.

    `name` is the name of this part in records. Raises `ValueError` if a number is not finite or if
    there are more or fewer numbers than turns.
    """

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        values = np.zeros((len(trajectories), max_turns), np.float32)
        for row, trajectory in enumerate(trajectories):
            if trajectory.turns and trajectory.included:
                values[row, : len(trajectory.turns)] = _by_turn(name, function, trajectory)
        return values

    fact = Fact(f"reward {name}", gather, "[M, K] float32, what the function gives to each turn")
    return Reward(lambda episodes: weight * facts.read(episodes, fact), (fact,))


def _by_turn(name: str, function: TrajectoryReward, trajectory: Trajectory) -> list[float]:
    count = len(trajectory.turns)
    value = function(trajectory)
    if isinstance(value, Sequence | np.ndarray) and np.ndim(value) == 1:
        values = [float(x) for x in value]
        if len(values) != count:
            raise ValueError(
                f"reward {name!r} must be a number, or one for each of the {count} turns of the"
                f" trajectory of problem {trajectory.problem.id!r}, got {len(values)}"
            )
    else:
        values = [0.0] * (count - 1) + [float(value)]  # type: ignore[arg-type]
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"reward {name!r} must be finite, got {value} for a trajectory of problem"
            f" {trajectory.problem.id!r}"
        )
    return values
