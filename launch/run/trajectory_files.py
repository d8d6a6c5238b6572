"""Files with the trajectories of some steps of a run and the credit of their turns."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from gtpo_jax.methods import TurnCredit
from gtpo_jax.results import records
from gtpo_jax.types import Tokenizer, Trajectory
from launch.run import cluster

FOLDER = "trajectories"


class Keeper:
    """Writes the trajectories of the first, every `every`-th and the last step into a folder.

    Files of steps after `start`, which will be repeated, are removed. Only process 0 writes.
    """

    def __init__(
        self, phase: pathlib.Path, tokenizer: Tokenizer, *, every: int, steps: int, start: int
    ):
        self.folder = phase / FOLDER
        self.tokenizer = tokenizer
        self.every, self.steps = every, steps
        if cluster.is_first():
            for step, path in records.saved_records(self.folder):
                if step > start:
                    path.unlink()

    def due(self, step: int) -> bool:
        """True if the trajectories of a step, counted from 1, are to be saved."""
        return self.every > 0 and (step in (1, self.steps) or step % self.every == 0)

    def keep(self, step: int, trajectories: Sequence[Trajectory], credit: TurnCredit) -> None:
        """Saves the trajectories of a step if they are due."""
        if self.due(step) and cluster.is_first():
            named = {
                "reward": credit.rewards,
                **credit.links,
                "advantage": credit.advantages,
                **credit.parts,
            }
            write(self.folder, self.tokenizer, step, trajectories, named)


def write(
    folder: pathlib.Path,
    tokenizer: Tokenizer,
    step: int,
    trajectories: Sequence[Trajectory],
    credit: Mapping[str, np.ndarray | jax.Array] | None = None,
) -> None:
    """Writes the file of a step; `credit` maps names to arrays `[M, K]`."""
    records.write_records(
        records.step_path(folder, step),
        (
            records.trajectory_record(
                trajectory,
                tokenizer,
                step=step,
                credit={
                    name: np.asarray(values)[row, : len(trajectory.turns)]
                    for name, values in (credit or {}).items()
                },
            )
            for row, trajectory in enumerate(trajectories)
        ),
    )
