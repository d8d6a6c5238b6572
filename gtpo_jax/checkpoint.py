"""Checkpoints of a run: what updates change of the train state, through Orbax.

    params             the trained parts of the parameters
    optimizer_state
    step

Frozen parts never change: `save_params` keeps them once, in a folder of their own. Everything random or ordered in a run is a function of (seed, step), so the step is all the position
that has to be saved.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from gtpo_jax.learner import TrainState
from gtpo_jax.types import Params


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
            item_handlers={"state": ocp.PyTreeCheckpointHandler()},
        )

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Saves in the background; the state may be donated as soon as this returns."""
        self._save(step, _changing(state))

    def save_params(self, step: int, params: Params) -> None:
        """Parameters without an optimizer, in the background too."""
        self._save(step, {"params": params})

    def restore(self, template: TrainState) -> tuple[int, TrainState]:
        """Step and state of the newest checkpoint, placed as the template is.

        Frozen parts are the template's own.
        """
        step = self.latest_step
        if step is None:
            raise ValueError(f"no checkpoint in {self.folder} to resume from")
        changing = _changing(template)
        self._check_fits(step, self._saved(step), changing, "model and optimizer")
        arguments = ocp.args.Composite(state=_restore_as(changing))
        found = self._manager.restore(step, args=arguments)["state"]
        return step, dataclasses.replace(
            template,
            trained=found["params"],
            optimizer_state=found["optimizer_state"],
            step=found["step"],
        )

    def restore_params(self, template: Params) -> Params:
        """Parameters alone of the newest checkpoint: another optimizer may go on from them."""
        step = self.latest_step
        if step is None:
            raise ValueError(
                f"no checkpoint in {self.folder}; train one with `python -m launch.sft`"
            )
        self._check_fits(step, self._saved(step)["params"], template, "model")
        arguments = ocp.args.Composite(state=_restore_as({"params": template}, part=True))
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

    def _save(self, step: int, tree: dict[str, Any]) -> None:
        if step != self.latest_step:
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))

    def _saved(self, step: int) -> dict[str, Any]:
        """What is known of the arrays of a checkpoint without reading them."""
        self.wait()  # the newest one may still be on its way to the disk
        return self._manager.item_metadata(step)["state"].tree

    def _check_fits(self, step: int, saved: Any, template: Any, what: str) -> None:
        """Raises at the first array that is not of the same shape in both trees."""
        there, here = _shapes(saved), _shapes(template)
        for path in sorted(there.keys() | here.keys()):
            if there.get(path) != here.get(path):
                raise ValueError(
                    f"checkpoint {step} in {self.folder} does not fit this {what}: the shape of"
                    f" {path} is {there.get(path, 'absent')} there and {here.get(path, 'absent')}"
                    " here; use the config it was made with"
                )


def _changing(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds of a state."""
    return {
        "params": state.trained,
        "optimizer_state": state.optimizer_state,
        "step": state.step,
    }


def _restore_as(template: Any, *, part: bool = False) -> ocp.args.PyTreeRestore:
    """Arrays of the shapes, types and places of the template; `part`: and nothing besides."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    return ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=part,
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path; named fields and keys read alike, as they do on disk."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}
