"""One phase of a run (`sft`, `train`): folder, checkpoints, metrics, stopping and resuming."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import signal
from collections.abc import Iterator

from configs.schema import RunConfig
from gtpo_jax.checkpoint import CheckpointStore, has_checkpoint
from gtpo_jax.learner import TrainState
from gtpo_jax.metrics import MetricsWriter
from launch import cli
from launch.network import CHECKPOINTS, FROZEN


class Phase:
    """Opens the folder of a phase, fresh or to resume, and refuses to overwrite work.

    Iterate over `steps(total)`: Ctrl-C lets the step under way finish, saves, and raises
    `KeyboardInterrupt` with the command that goes on.
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
        saved = has_checkpoint(checkpoints)
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
            if not resume:  # what a run left that ended before its first checkpoint
                shutil.rmtree(self.folder / FROZEN, ignore_errors=True)
            with CheckpointStore(self.folder / FROZEN) as store:
                if resume:
                    state = dataclasses.replace(state, frozen=store.restore_params(state.frozen))
                else:
                    store.save_params(0, state.frozen)
        if resume:
            self.start, self.state = self.store.restore(state)
        self.metrics = MetricsWriter(self.folder, resume_step=self.start)

    def steps(self, total: int) -> Iterator[int]:
        """Steps from where the phase stands to `total`, with checkpoints between and at the end."""
        with _StopRequest() as stop:
            for step in range(self.start, total):
                yield step
                done = step + 1
                if done % self.checkpoint_every == 0 or done == total or stop.requested:
                    self.store.save(done, self.state)
                if stop.requested and done < total:
                    self.close()
                    go_on = f"`python -m {self.go_on}` and the same options"
                    raise KeyboardInterrupt(f"saved step {done}; go on with {go_on}")
        self.store.wait()

    def close(self) -> None:
        self.store.close()
        self.metrics.close()

    def __enter__(self) -> Phase:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_same_config(path: pathlib.Path, config: RunConfig) -> None:
    """Raises when the saved config differs: resuming would not continue the same run."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    current = json.loads(json.dumps(dataclasses.asdict(config)))
    changed = sorted(_differences(saved, current))
    if changed:
        raise ValueError(
            f"{path} was written with other settings ({', '.join(changed)});"
            " resume with the same ones, or start in another --run-dir"
        )


def _differences(a: object, b: object, prefix: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from _differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else key)
    elif a != b:
        yield prefix


class _StopRequest:
    """Turns the first Ctrl-C into a request; the second one interrupts at once."""

    requested = False

    def __enter__(self) -> _StopRequest:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _handle(self, signum, frame) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
