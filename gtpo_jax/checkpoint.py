"""Checkpoints of a run: the train state through Orbax, and a small host record beside it.

Everything random or ordered in a run is a function of (seed, step), so the step is all the position
that has to be saved.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from gtpo_jax.learner import TrainState


def has_checkpoint(folder: str | pathlib.Path) -> bool:
    """Whether a finished checkpoint lies in the folder. Creates nothing."""
    folder = pathlib.Path(folder)
    return folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())


class CheckpointStore:
    """The checkpoints in one folder. Saving is atomic: a killed save leaves the previous one."""

    def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
        self.folder = pathlib.Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, record: dict[str, Any]) -> None:
        """Saves in the background; the state may be donated as soon as this returns."""
        if step == self.latest_step:
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
        )
        self._manager.save(step, args=arguments)

    def restore(self, template: TrainState) -> tuple[int, TrainState, dict[str, Any]]:
        """Step, state and record of the newest checkpoint, placed as the template is."""
        step = self.latest_step
        if step is None:
            raise ValueError(f"no checkpoint in {self.folder} to resume from")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=arguments)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"checkpoint {step} in {self.folder} does not fit this model and optimizer;"
                f" use the config it was made with ({str(error).splitlines()[0]})"
            ) from error
        return step, restored["state"], restored["record"]

    def restore_params(self, template: Any) -> Any:
        """Parameters alone of the newest checkpoint: another optimizer may go on from them."""
        step = self.latest_step
        if step is None:
            raise ValueError(
                f"no checkpoint in {self.folder}; train one with `python -m launch.sft`"
            )
        abstract = {"params": jax.tree.map(ocp.utils.to_shape_dtype_struct, template)}
        placement = ocp.checkpoint_utils.construct_restore_args(abstract)
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(abstract, restore_args=placement, partial_restore=True)
        )
        return self._manager.restore(step, args=arguments)["state"]["params"]

    def wait(self) -> None:
        """Returns when the last save is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_) -> None:
        self.close()
