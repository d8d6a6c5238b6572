"""Checkpoints of a run, written by Orbax: the parts of the train state that updates change.

    params             the trained parts of the parameters
    optimizer_state
    step
    method             states of the parts of the method, if they have any

Frozen parts never change: `save_params` saves them once, in a folder of their own.

All randomness and order in a run is a function of (seed, step), so the step is the only position
that must be saved.

Saving is atomic: a checkpoint gets its name, the step, once all of it is on disk. Its `files.json`
lists its files and their sizes. A checkpoint with missing or truncated files is damaged: a warning
names it, and the newest whole checkpoint is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from gtpo_jax.devices import processes
from gtpo_jax.learner.state import TrainState, changing
from gtpo_jax.types import Params

PARAMS = "params"
FILES = "files.json"
DAMAGED = ".damaged"
"""Suffix of the name of a damaged checkpoint that was moved aside."""

_STATE = "state"
_NEEDED = (f"{_STATE}/_METADATA", f"{_STATE}/manifest.ocdbt")
_LOST = r"NOT_FOUND|DATA_LOSS|OUT_OF_RANGE|FAILED_PRECONDITION|INVALID_ARGUMENT"

T = TypeVar("T")


class SaveError(RuntimeError):
    """A checkpoint could not be written; the message says why, and names the last good one."""


def saved_steps(folder: str | pathlib.Path) -> dict[int, str | None]:
    """Step of each checkpoint in the folder, newest first → its damage, None if it is whole.

    Compares only the sizes of files. Creates nothing.
    """
    folder = pathlib.Path(folder)
    children = folder.iterdir() if folder.is_dir() else ()
    steps = sorted((int(child.name) for child in children if child.name.isdigit()), reverse=True)
    return {step: _damage(folder / str(step)) for step in steps}


def newest_step(folder: str | pathlib.Path) -> int | None:
    """Step of the newest whole checkpoint in the folder, None if nothing was saved.

    Raises ValueError if all are damaged. Creates nothing.
    """
    steps = saved_steps(folder)
    whole = [step for step, damage in steps.items() if damage is None]
    if steps and not whole:
        raise ValueError(_all_damaged(folder, steps))
    return whole[0] if whole else None


def has_checkpoint(folder: str | pathlib.Path) -> bool:
    """True if the folder holds a whole checkpoint. Raises ValueError if all are damaged."""
    return newest_step(folder) is not None


class CheckpointStore:
    """Saves and restores checkpoints in one folder, and keeps the newest `keep`.

    All processes must call `save`, `restore` and `close`, in the same order.
    """

    def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
        self.folder = pathlib.Path(folder).absolute()
        self._begun: int | None = None  # step of the last save
        self._under_way = False
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
            ),
            item_handlers={_STATE: ocp.PyTreeCheckpointHandler()},
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint on disk; see `newest_step`."""
        return newest_step(self.folder)

    def save(self, step: int, state: TrainState) -> None:
        """Saves in the background; the state may be donated as soon as this returns.

        Raises `SaveError` for this save or the one before it.
        """
        self._save(step, _on_disk(state))

    def save_params(self, step: int, params: Params) -> None:
        """Saves parameters without an optimizer, in the background."""
        self._save(step, {PARAMS: params})

    def restore(self, template: TrainState) -> tuple[int, TrainState]:
        """Step and state of the newest whole checkpoint, placed like the template.

        Frozen parts are those of the template. Newer checkpoints, which are damaged, are moved
        aside so that their steps can be saved again. Raises ValueError if no checkpoint is whole.
        """
        wanted = _on_disk(template)

        def read(step: int) -> dict[str, Any]:
            self._check_fits(step, self._saved(step), wanted, "model and optimizer")
            arguments = ocp.args.Composite(state=_restore_as(wanted))
            return self._manager.restore(step, args=arguments)[_STATE]

        step, fields, damaged = self._newest(read, " to resume from")
        for bad, damage in damaged.items():
            name = self._move_aside(bad)
            self._warn(bad, damage, f"it is now {name}, and the run goes on from step {step}")
        if damaged:
            processes.gather_objects(None)  # waits until process 0 has renamed them
            self._manager.reload()
        return step, dataclasses.replace(template, trained=fields.pop(PARAMS), **fields)

    def restore_params(self, template: Params, *, step: int | None = None) -> Params:
        """Parameters of a checkpoint, without the optimizer state.

        `step`: step of the checkpoint. None: the newest whole one. The folder is not changed.
        Raises ValueError if there is no such checkpoint.
        """

        def read(step: int) -> Params:
            self._check_fits(step, self._saved(step)[PARAMS], template, "model")
            arguments = ocp.args.Composite(state=_restore_as({PARAMS: template}, part=True))
            return self._manager.restore(step, args=arguments)[_STATE][PARAMS]

        if step is not None:
            self._check_whole(step)
            return read(step)
        newest, params, damaged = self._newest(read, "; train one with `python -m launch.sft`")
        for bad, damage in damaged.items():
            self._warn(bad, damage, f"step {newest} is used instead")
        return params

    def check(self) -> None:
        """Raises `SaveError` if the background save has failed by now."""
        if self._under_way and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is on disk; raises `SaveError` if it failed."""
        if self._under_way:
            self._under_way = False
            with self._save_errors(self._begun):
                self._manager.wait_until_finished()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _save(self, step: int, tree: dict[str, Any]) -> None:
        if step == self._begun:
            return
        self.wait()
        self._begun = step
        with self._save_errors(step):
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
        self._under_way = True

    def _list_files(self) -> None:
        """Writes `files.json` of a checkpoint that is about to get its name. Runs on process 0."""
        [temporary] = self.folder.glob(f"{self._begun}.orbax-checkpoint-tmp*")
        state = temporary / _STATE
        files = sorted(path for path in state.rglob("*") if path.is_file())
        sizes = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in files}
        (temporary / FILES).write_text(json.dumps(sizes, indent=0), encoding="utf-8")

    @contextlib.contextmanager
    def _save_errors(self, step: int | None) -> Iterator[None]:
        """Turns errors of the storage into a `SaveError` of one line.

        Orbax and TensorStore have no exception types of their own.
        """
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            whole = [step for step, damage in saved_steps(self.folder).items() if damage is None]
            there = f"the last good one is step {whole[0]}" if whole else "there is no other one"
            raise SaveError(
                f"checkpoint {step} could not be saved in {self.folder}: {_reason(error)}; {there}"
            ) from error

    def _newest(self, read: Callable[[int], T], without: str) -> tuple[int, T, dict[int, str]]:
        """Step and content of the newest whole checkpoint, and the damage of newer ones by step.

        Process 0 decides if the files are whole; reading must succeed on all processes.
        """
        self.wait()  # the newest one may still be on its way to the disk
        damaged: dict[int, str] = {}
        for step, damage in processes.gather_objects(saved_steps(self.folder))[0].items():
            if damage is None:
                content, damage = _attempt(read, step)
                damage = next(filter(None, processes.gather_objects(damage)), None)
                if content is not None and damage is None:
                    return step, content, damaged
            damaged[step] = str(damage)
        if damaged:
            raise ValueError(_all_damaged(self.folder, damaged))
        raise ValueError(f"no checkpoint in {self.folder}{without}")

    def _check_whole(self, step: int) -> None:
        saved = processes.gather_objects(saved_steps(self.folder))[0]
        if step not in saved:
            there = ", ".join(map(str, saved)) or "none"
            raise ValueError(f"no checkpoint {step} in {self.folder}; there are: {there}")
        if saved[step] is not None:
            raise ValueError(f"checkpoint {step} in {self.folder} is damaged: {saved[step]}")

    def _move_aside(self, step: int) -> str:
        """Renames a damaged checkpoint, on process 0, and returns the new name."""
        name, number = f"{step}{DAMAGED}", 1
        while (self.folder / name).exists():
            number += 1
            name = f"{step}{DAMAGED}-{number}"
        if jax.process_index() == 0:
            (self.folder / str(step)).rename(self.folder / name)
        return name

    def _warn(self, step: int, damage: str, then: str) -> None:
        if jax.process_index() == 0:
            logging.getLogger(__name__).warning(
                "checkpoint %s in %s is damaged (%s): %s", step, self.folder, damage, then
            )

    def _saved(self, step: int) -> dict[str, Any]:
        """Metadata of the arrays of a checkpoint; the arrays are not read."""
        return self._manager.item_metadata(step)[_STATE].tree

    def _check_fits(self, step: int, saved: Any, template: Any, what: str) -> None:
        """Raises ValueError at the first array whose shape differs between the two trees."""
        there, here = _shapes(saved), _shapes(template)
        for path in sorted(there.keys() | here.keys()):
            if there.get(path) != here.get(path):
                raise ValueError(
                    f"checkpoint {step} in {self.folder} does not fit this {what}: the shape of"
                    f" {path} is {there.get(path, 'absent')} there and {here.get(path, 'absent')}"
                    " here; use the config it was made with"
                )


def _damage(checkpoint: pathlib.Path) -> str | None:
    """Describes the damage of the files of a checkpoint; None if it is whole.

    Checkpoints of earlier versions have no `files.json`; of them only the needed files are checked.
    """
    try:
        sizes = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        sizes = dict.fromkeys(_NEEDED)
    except ValueError as error:
        return f"{FILES} is no list of files: {error}"
    for name, size in sizes.items():
        try:
            actual = (checkpoint / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if actual != size and (size is not None or actual == 0):
            return f"{name} has {actual:,} bytes" + (f" of {size:,}" if size else "")
    return None


def _attempt(read: Callable[[int], T], step: int) -> tuple[T | None, str | None]:
    """The result of `read`, or the damage that made it fail. Other errors propagate."""
    try:
        return read(step), None
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return None, _reason(error)
    except ValueError as error:
        if re.match(_LOST, str(error)):  # a status of TensorStore
            return None, _reason(error)
        raise


def _all_damaged(folder: str | pathlib.Path, damaged: dict[int, Any]) -> str:
    tried = "; ".join(f"step {step}: {damage}" for step, damage in damaged.items())
    return (
        f"no whole checkpoint in {folder} ({tried}); bring one back from a copy, or start in"
        " another --run-dir"
    )


def _reason(error: Exception) -> str:
    """The error message of the system, or the first line of the text without TensorStore's spec."""
    text = str(error)
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text.split(" [tensorstore_spec")[0].split("\n")[0] or type(error).__name__


def _on_disk(state: TrainState) -> dict[str, Any]:
    """The tree that a checkpoint of a state holds."""
    fields = changing(state)
    if not jax.tree.leaves(fields["method"]):
        del fields["method"]
    return {PARAMS: fields.pop("trained"), **fields}


def _restore_as(template: Any, *, part: bool = False) -> ocp.args.PyTreeRestore:
    """Restore arguments for arrays placed like the template; `part`: only the template's arrays."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    return ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=part,
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path; fields and keys are spelled alike, as on disk."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}
