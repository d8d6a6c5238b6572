"""The config that a run has saved: launchers that work on the run start from it."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shlex
from collections.abc import Sequence

from configs import resuming, saved
from configs.schema import RunConfig
from gtpo_jax.learner.checkpoint import newest_step, saved_steps
from launch.run import display
from launch.run.network import CHECKPOINTS

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own:
    """The saved config of a phase of a run that has a checkpoint."""

    path: pathlib.Path
    scheduled: tuple[str, ...] = ()  # resumed phases, which keep their learning rate schedules

    def read(self) -> RunConfig:
        return saved.read(self.path)

    def merge(self, config: RunConfig) -> RunConfig:
        """The config to continue with, where `config` is this config plus the options of the
        command line.
        """
        before = self.read()
        for phase in self.scheduled:
            config = resuming.keep_schedule(before, config, phase)
        return config


def of_phase(run_dir: pathlib.Path, phase: str, *, goes_on: bool = False) -> Own | None:
    """The config of a phase; None if it has no checkpoint or no config."""
    path = run_dir / phase / CONFIG
    if phase not in resuming.PHASES or not path.exists():
        return None
    if not saved_steps(run_dir / phase / CHECKPOINTS):
        return None
    return Own(path=path, scheduled=(phase,) if goes_on else ())


def newest(run_dir: pathlib.Path, *, goes_on: bool = False) -> Own | None:
    """The config of the latest phase that has one."""
    configs = (of_phase(run_dir, phase, goes_on=goes_on) for phase in reversed(resuming.PHASES))
    return next(filter(None, configs), None)


def option(argv: Sequence[str], name: str) -> str | None:
    """The last value that a command line gives to an option; None without one."""
    value = None
    for word, following in itertools.zip_longest(argv, argv[1:]):
        key, equals, rest = word.partition("=")
        if key.replace("_", "-") == f"--{name}":
            value = rest if equals else following
    return value


def flag(argv: Sequence[str], *names: str) -> bool:
    """True if a command line has one of the flags."""
    return any(word.replace("_", "-") in {f"--{name}" for name in names} for word in argv)


def tell_changes(own: Own | None, config: RunConfig) -> None:
    """Prints in one line the settings that make the policy differ from the saved config's."""
    if own is None:
        return
    changed = [c for c in resuming.changes(own.read(), config) if c.fixed]
    if changed:
        listed = ", ".join(map(str, changed))
        display.CONSOLE.print(f"other settings than in {own.path}: {listed}", **display.PLAIN)


def tell_unfinished(run_dir: pathlib.Path, phase: str, step: int | None = None) -> None:
    """Prints in one line that a phase was not finished at a step, by default its newest."""
    own = of_phase(run_dir, phase)
    step = newest_step(run_dir / phase / CHECKPOINTS) if step is None else step
    total = getattr(own.read(), phase).steps if own is not None else 0
    if step is not None and step < total:
        display.CONSOLE.print(
            f"{run_dir / phase} is not finished: this is step {step:,} of {total:,};"
            f" `{resume_command(phase, run_dir)}` goes on with it",
            **display.PLAIN,
        )


def resume_command(phase: str, run_dir: pathlib.Path, *options: object) -> str:
    """The command line that resumes a phase."""
    words = ["--resume", "--run-dir", str(run_dir), *map(str, options)]
    return f"python -m launch.{phase} {shlex.join(words)}"
