"""Files with the trajectories of some steps of a run, with their facts and credit."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

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

    def keep(
        self,
        step: int,
        trajectories: Sequence[Trajectory],
        credit: TurnCredit,
        facts: Mapping[str, Any],
    ) -> None:
        """Saves the trajectories of a step if they are due. `facts` are those of its episodes."""
        if self.due(step) and cluster.is_first():
            named = {
                "reward": credit.rewards,
                **credit.links,
                "advantage": credit.advantages,
                **credit.parts,
            }
            turns = credit.rewards.shape
            write(self.folder, self.tokenizer, step, trajectories, named, numbers(facts, turns))


def numbers(facts: Mapping[str, Any], turns: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The facts that are a number of each trajectory or turn; `turns` is the shape `[M, K]`.

    Codes, vectors, and whatever is of another shape are left out.
    """
    return {
        name: values
        for name, values in facts.items()
        if isinstance(values, np.ndarray) and values.shape in (turns, turns[:1])
    }


def write(
    folder: pathlib.Path,
    tokenizer: Tokenizer,
    step: int,
    trajectories: Sequence[Trajectory],
    credit: Mapping[str, np.ndarray | jax.Array] | None = None,
    facts: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the file of a step: `credit` is name → `[M, K]`, `facts` name → `[M]` or `[M, K]`."""
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
                facts={
                    name: values[row] if values.ndim == 1 else values[row, : len(trajectory.turns)]
                    for name, values in (facts or {}).items()
                },
            )
            for row, trajectory in enumerate(trajectories)
        ),
    )
