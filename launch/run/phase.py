"""One phase of a run (`sft`, `train`): folder, checkpoints, metrics, stopping and resuming."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from configs import resuming, saved
from configs.resuming import Changed
from configs.schema import RunConfig
from gtpo_jax.learner import TrainState
from gtpo_jax.learner.checkpoint import CheckpointStore, newest_step, saved_steps
from gtpo_jax.results.metrics import MetricsWriter
from launch import cli
from launch.run import cluster, display, own, signals, versions
from launch.run.network import CHECKPOINTS, FROZEN

HISTORY = "history.jsonl"
"""File in the folder of a run: when each phase began and resumed, and which settings changed."""


class Phase:
    """Opens the folder of a phase, fresh or to resume, and refuses to overwrite work.

    Iterate over `steps(total)`: after SIGTERM or Ctrl-C the current step finishes and is saved;
    then `Preempted` or `KeyboardInterrupt` is raised with the command that continues.
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
        """`go_on` is the command that continues the phase."""
        self.folder = run_dir / name
        self.state = state
        self.checkpoint_every = checkpoint_every
        self.go_on = go_on
        self.start = 0
        checkpoints = self.folder / CHECKPOINTS
        check_unused(run_dir, name, resume=resume)
        changed = check_settings(run_dir, name, config) if resume else []
        if not resume:
            cli.write_json(self.folder / own.CONFIG, dataclasses.asdict(config))
        self.store = CheckpointStore(checkpoints)
        if state.frozen:
            if not resume and cluster.is_first():
                # Files of a run that ended before its first checkpoint.
                shutil.rmtree(self.folder / FROZEN, ignore_errors=True)
            cluster.wait_for_all()
            with CheckpointStore(self.folder / FROZEN) as store:
                if resume:
                    state = dataclasses.replace(state, frozen=store.restore_params(state.frozen))
                else:
                    store.save_params(0, state.frozen)
        if resume:
            self.start, self.state = self.store.restore(state)
            signals.saved(go_on)
            display.CONSOLE.print(f"{name} goes on from step {self.start}", **display.PLAIN)
        change_settings(run_dir, name, config, self.start, changed)
        first = cluster.is_first()
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
        """Yields the steps from the current one up to `total`; saves checkpoints between them and
        at the end.

        A failed save raises `SaveError`, at the latest when the following step ends.
        """
        with signals.AfterStep() as after:
            for step in range(self.start, total):
                yield step
                done = step + 1
                self.store.check()
                told = after.told()
                if done % self.checkpoint_every == 0 or done == total or told:
                    self.store.save(done, self.state)
                    after.saved(self.go_on)
                if told:
                    self.store.wait()
                    go_on = signals.how_to_go_on(self.go_on)
                    raise after.stop(told, f"saved step {done}; {go_on}")
            self.store.wait()

    def close(self) -> None:
        self.store.close()
        self.metrics.close()

    def __enter__(self) -> Phase:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_unused(run_dir: pathlib.Path, phase: str, *, resume: bool) -> None:
    """Raises ValueError if a phase would begin over existing checkpoints, or resume without any."""
    folder = run_dir / phase
    there = saved_steps(folder / CHECKPOINTS)
    if resume and not there:
        raise ValueError(
            f"no checkpoint in {folder / CHECKPOINTS} to resume from; leave out --resume"
        )
    if there and not resume:
        raise ValueError(
            f"{folder} holds checkpoints; pass --resume to go on from the newest, or choose another"
            " --run-dir"
        )


def check_settings(run_dir: pathlib.Path, phase: str, config: RunConfig) -> list[Changed]:
    """The settings that differ from those a phase was saved with.

    Raises ValueError if the phase would no longer continue the same run with them.
    """
    before = saved.read(run_dir / phase / own.CONFIG)
    for following in resuming.PHASES[resuming.PHASES.index(phase) + 1 :]:
        if saved_steps(run_dir / following / CHECKPOINTS):
            # A later phase began with this one as it is, and reports its own settings when resumed.
            resuming.check(resuming.changes(before, config, following), config, following, 0)
            return []
    changed = resuming.changes(before, config, phase)
    done = newest_step(run_dir / phase / CHECKPOINTS) or 0
    resuming.check(changed, config, phase, done)
    return changed


def change_settings(
    run_dir: pathlib.Path, phase: str, config: RunConfig, step: int, changed: Sequence[Changed]
) -> None:
    """Prints the settings that change at a step, and saves them: in the history of the run, one
    JSON line per start or resume of a phase, and in the config of the phase.
    """
    for change in changed:
        display.CONSOLE.print(f"{phase}, from step {step} on: {change}", **display.PLAIN)
    part = getattr(config, phase)
    if any(change.name == f"{phase}.steps" for change in changed):
        display.CONSOLE.print(
            f"{phase}: the learning rate keeps the course over {part.optimizer.decay_steps} steps"
            f" that it began with; later steps have the last rate",
            **display.PLAIN,
        )
    if not cluster.is_first():
        return
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "phase": phase,
        "step": step,
        "preset": config.preset,
        "changes": {c.name: {"before": c.before, "after": c.setting.value} for c in changed},
    }
    with (run_dir / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    cli.write_json(run_dir / phase / own.CONFIG, dataclasses.asdict(config))
