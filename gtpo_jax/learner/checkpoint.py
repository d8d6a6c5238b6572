"""Checkpoints of a run: what updates change of the train state, through Orbax.

    params             the trained parts of the parameters
    optimizer_state
    step
    method             states of the parts of the method, where they have any

Frozen parts never change: `save_params` keeps them once, in a folder of their own.

Everything random or ordered in a run is a function of (seed, step), so the step is all the position
that has to be saved.

Saving is atomic: a checkpoint has its name, the step, when all of it is on disk. `files.json` in it
lists its files with their sizes. One whose files are missing or cut short is damaged: a warning
names it, and the newest whole one is used.
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
"""What is added to the name of a damaged checkpoint that is moved aside."""

_STATE = "state"
_NEEDED = (f"{_STATE}/_METADATA", f"{_STATE}/manifest.ocdbt")
_LOST = r"NOT_FOUND|DATA_LOSS|OUT_OF_RANGE|FAILED_PRECONDITION|INVALID_ARGUMENT"

T = TypeVar("T")


class SaveError(RuntimeError):
    """A checkpoint could not be written; the message says why, and which one there is."""


def saved_steps(folder: str | pathlib.Path) -> dict[int, str | None]:
    """Steps with a checkpoint in the folder, newest first → what is wrong with it, None if nothing.

    Sizes of files are compared, nothing is read. Creates nothing.
    """
    folder = pathlib.Path(folder)
    children = folder.iterdir() if folder.is_dir() else ()
    steps = sorted((int(child.name) for child in children if child.name.isdigit()), reverse=True)
    return {step: _damage(folder / str(step)) for step in steps}


def newest_step(folder: str | pathlib.Path) -> int | None:
    """Step of the newest whole checkpoint in the folder, None where nothing was saved.

    Raises ValueError where all are damaged. Creates nothing.
    """
    steps = saved_steps(folder)
    whole = [step for step, damage in steps.items() if damage is None]
    if steps and not whole:
        raise ValueError(_all_damaged(folder, steps))
    return whole[0] if whole else None


def has_checkpoint(folder: str | pathlib.Path) -> bool:
    """Whether a whole checkpoint lies in the folder; ValueError where all are damaged."""
    return newest_step(folder) is not None


class CheckpointStore:
    """The checkpoints in one folder; the newest `keep` of them stay.

    With several processes all of them call `save`, `restore` and `close`, in the same order.
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
        """As `newest_step`; a save that is under way does not count."""
        return newest_step(self.folder)

    def save(self, step: int, state: TrainState) -> None:
        """Saves in the background; the state may be donated as soon as this returns.

        Raises `SaveError` for this save or the one before it.
        """
        self._save(step, _on_disk(state))

    def save_params(self, step: int, params: Params) -> None:
        """Parameters without an optimizer, in the background too."""
        self._save(step, {PARAMS: params})

    def restore(self, template: TrainState) -> tuple[int, TrainState]:
        """Step and state of the newest whole checkpoint, placed as the template is.

        Frozen parts are the template's own. Newer ones, which are damaged, are moved aside, so that
        their steps can be saved again. Raises ValueError where there is no whole one.
        """
        wanted = _on_disk(template)

        def read(step: int) -> dict[str, Any]:
            self._check_fits(step, self._saved(step), wanted, "model and optimizer")
            arguments = ocp.args.Composite(state=_restore_as(wanted))
            return self._manager.restore(step, args=arguments)[_STATE]

        step, found, damaged = self._newest(read, " to resume from")
        for bad, damage in damaged.items():
            name = self._move_aside(bad)
            self._warn(bad, damage, f"it is now {name}, and the run goes on from step {step}")
        if damaged:
            processes.gather_objects(None)  # until process 0 has renamed them
            self._manager.reload()
        return step, dataclasses.replace(template, trained=found.pop(PARAMS), **found)

    def restore_params(self, template: Params, *, step: int | None = None) -> Params:
        """Parameters alone of the newest whole checkpoint: another optimizer may go on from them.

        With a `step` it is that one. Nothing in the folder is changed. Raises ValueError where
        there is no whole one.
        """

        def read(step: int) -> Params:
            self._check_fits(step, self._saved(step)[PARAMS], template, "model")
            arguments = ocp.args.Composite(state=_restore_as({PARAMS: template}, part=True))
            return self._manager.restore(step, args=arguments)[_STATE][PARAMS]

        if step is not None:
            self._check_whole(step)
            return read(step)
        newest, found, damaged = self._newest(read, "; train one with `python -m launch.sft`")
        for bad, damage in damaged.items():
            self._warn(bad, damage, f"step {newest} is used instead")
        return found

    def check(self) -> None:
        """Raises `SaveError` if the save in the background has failed by now."""
        if self._under_way and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk; raises `SaveError` if it has failed."""
        if self._under_way:
            self._under_way = False
            with self._told(self._begun):
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
        with self._told(step):
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
        self._under_way = True

    def _list_files(self) -> None:
        """Writes the list of a checkpoint that is about to get its name. On process 0."""
        [temporary] = self.folder.glob(f"{self._begun}.orbax-checkpoint-tmp*")
        state = temporary / _STATE
        files = sorted(path for path in state.rglob("*") if path.is_file())
        sizes = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in files}
        (temporary / FILES).write_text(json.dumps(sizes, indent=0), encoding="utf-8")

    @contextlib.contextmanager
    def _told(self, step: int | None) -> Iterator[None]:
        """Errors of the storage as one line; those of Orbax and TensorStore have no type of their
        own.
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
        """Step, content, and newer steps with what is wrong with them.

        Whether a checkpoint is whole is for process 0 to say; reading has to succeed on all.
        """
        self.wait()  # the newest one may still be on its way to the disk
        damaged: dict[int, str] = {}
        for step, damage in processes.gather_objects(saved_steps(self.folder))[0].items():
            if damage is None:
                found, damage = _attempt(read, step)
                damage = next(filter(None, processes.gather_objects(damage)), None)
                if found is not None and damage is None:
                    return step, found, damaged
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
        """Renames a damaged checkpoint and returns its new name. Process 0 does."""
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
        """What is known of the arrays of a checkpoint without reading them."""
        return self._manager.item_metadata(step)[_STATE].tree

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


def _damage(checkpoint: pathlib.Path) -> str | None:
    """What is wrong with the files of a checkpoint, None if nothing is.

    One that has no list, of an earlier version, is looked at less closely.
    """
    try:
        sizes = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        sizes = dict.fromkeys(_NEEDED)
    except ValueError as error:
        return f"{FILES} is no list of files: {error}"
    for name, size in sizes.items():
        try:
            found = (checkpoint / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if found != size and (size is not None or found == 0):
            return f"{name} has {found:,} bytes" + (f" of {size:,}" if size else "")
    return None


def _attempt(read: Callable[[int], T], step: int) -> tuple[T | None, str | None]:
    """What `read` gives, or what is wrong with the checkpoint. Other errors pass."""
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
    """What the system says, or else the first line of the message without what TensorStore adds."""
    text = str(error)
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text.split(" [tensorstore_spec")[0].split("\n")[0] or type(error).__name__


def _on_disk(state: TrainState) -> dict[str, Any]:
    """The part of a state that a checkpoint holds."""
    held = changing(state)
    if not jax.tree.leaves(held["method"]):
        del held["method"]
    return {PARAMS: held.pop("trained"), **held}


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
