"""One phase of a run (`sft`, `train`): folder, checkpoints, metrics, stopping and resuming."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from configs.schema import RunConfig
from gtpo_jax.checkpoint import CheckpointStore, saved_steps
from gtpo_jax.learner import TrainState
from gtpo_jax.metrics import MetricsWriter
from launch import cli, display, distributed, stopping, versions
from launch.network import CHECKPOINTS, FROZEN


class Phase:
    """Opens the folder of a phase, fresh or to resume, and refuses to overwrite work.

    Iterate over `steps(total)`: SIGTERM and Ctrl-C let the step under way finish, save, and raise
    `Preempted` or `KeyboardInterrupt` with the command that goes on.
    """

    def __init__(
        self,
        name: str,
        run_dir: pathlib.Path,
        config: RunConfig,
        state: TrainState,
        *,
        resume: bool,
        checkpoint_every: int,
        go_on: str,
    ):
        self.folder = run_dir / name
        self.state = state
        self.checkpoint_every = checkpoint_every
        self.go_on = go_on
        self.start = 0
        checkpoints = self.folder / CHECKPOINTS
        saved = saved_steps(checkpoints)
        if resume and not saved:
            raise ValueError(f"no checkpoint in {checkpoints} to resume from; leave out --resume")
        if saved and not resume:
            raise ValueError(
                f"{self.folder} holds checkpoints; pass --resume to go on from the newest,"
                " or choose another --run-dir"
            )
        if resume:
            check_same_config(self.folder / "config.json", config)
        else:
            cli.write_json(self.folder / "config.json", dataclasses.asdict(config))
        self.store = CheckpointStore(checkpoints)
        if state.frozen:
            if not resume and distributed.is_first():
                # What a run left that ended before its first checkpoint.
                shutil.rmtree(self.folder / FROZEN, ignore_errors=True)
            distributed.wait_for_all()
            with CheckpointStore(self.folder / FROZEN) as store:
                if resume:
                    state = dataclasses.replace(state, frozen=store.restore_params(state.frozen))
                else:
                    store.save_params(0, state.frozen)
        if resume:
            self.start, self.state = self.store.restore(state)
            stopping.go_on = go_on
            display.CONSOLE.print(
                f"{name} goes on from step {self.start}", highlight=False, soft_wrap=True
            )
        first = distributed.is_first()
        if first:
            versions.append(self.folder / "versions.json", self.start, fresh=not resume)
        self.metrics = MetricsWriter(
            self.folder,
            resume_step=self.start,
            write=first,
            project=config.wandb,
            config=dataclasses.asdict(config),
        )

    def steps(self, total: int) -> Iterator[int]:
        """Steps from where the phase stands to `total`, with checkpoints between and at the end.

        A save that fails raises `SaveError`, at the latest when the step after it ends.
        """
        with stopping.AfterStep() as after:
            for step in range(self.start, total):
                yield step
                done = step + 1
                self.store.check()
                told = after.told()
                if done % self.checkpoint_every == 0 or done == total or told:
                    self.store.save(done, self.state)
                    stopping.go_on = self.go_on
                if told:
                    self.store.wait()
                    go_on = f"`python -m {self.go_on}` and the same options"
                    raise after.stop(told, f"saved step {done}; go on with {go_on}")
            self.store.wait()

    def close(self) -> None:
        self.store.close()
        self.metrics.close()

    def __enter__(self) -> Phase:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_same_config(path: pathlib.Path, config: RunConfig) -> None:
    """Raises when the saved config differs: resuming would not continue the same run.

    A field that the file lacks, because it was not there when the run began, had what is now its
    default.
    """
    saved = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(_differences(saved, config))
    if changed:
        raise ValueError(
            f"{path} was written with other settings ({', '.join(changed)});"
            " resume with the same ones, or start in another --run-dir"
        )


def _differences(saved: object, current: Any, prefix: str = "") -> Iterator[str]:
    """Names of the fields that differ, as in `train.optimizer.b1`."""
    if not (dataclasses.is_dataclass(current) and isinstance(saved, dict)):
        if saved != json.loads(json.dumps(current, default=dataclasses.asdict)):
            yield prefix
        return
    fields = {field.name: field for field in dataclasses.fields(current)}
    for name in fields.keys() | saved.keys():
        path = f"{prefix}.{name}" if prefix else name
        if name not in fields:
            yield path
        elif name in saved:
            yield from _differences(saved[name], getattr(current, name), path)
        elif getattr(current, name) != _default(fields[name]):
            yield path


def _default(field: dataclasses.Field) -> object:
    """MISSING, which nothing equals, for one without."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
