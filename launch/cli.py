"""Command lines: a preset, then overrides. Bad input is one line on stderr and exit status 2."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import pathlib
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, NoReturn, TypeVar

import jax
import tyro

from configs.presets import PRESETS
from configs.schema import RunConfig
from gtpo_jax.devices.processes import ProcessFailure, gather_objects
from gtpo_jax.learner.checkpoint import SaveError, saved_steps
from gtpo_jax.tools import IsolationError
from launch import panels
from launch.run import display, faults, own, platforms, signals
from launch.run.cluster import Cluster, Distributed, is_first, leave
from launch.run.faults import EXIT_BAD_INPUT, EXIT_FAILED

EXIT_PREEMPTED = 75
"""Exit status after a SIGTERM when everything is saved: started again, the run continues."""
EXIT_INTERRUPTED = 130

KEPT = ("config", "run_dir", "resume", "resume_if_any", "distributed")
"""Arguments that a command line that continues a run omits or states in its own way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of every launcher."""

    WRITES: ClassVar[tuple[str, ...]] = ("json",)
    """Options that name a file to write, or the folder `run_dir`."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        """The saved config that a command line continues, or None where it begins a run."""
        del argv
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments(Arguments):
    """Options of every launcher that works on a run."""

    WRITES = ("run_dir", "json")

    run_dir: pathlib.Path = pathlib.Path("runs/mine")
    """Folder of the run: config, tokenizer, checkpoints, metrics, pictures."""
    json: pathlib.Path | None = None
    """Also write the results to this JSON file."""
    cluster: Cluster = "none"
    """How processes find each other. `auto`: the environment (TPU pod, Slurm or JobSet) says.
    `none`: one process, or the options `distributed`."""
    distributed: Distributed = dataclasses.field(default_factory=Distributed)

    @classmethod
    def folder(cls, argv: Sequence[str]) -> pathlib.Path:
        """The folder of the run that a command line names."""
        return pathlib.Path(own.option(argv, "run-dir") or cls.run_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseArguments(RunArguments):
    """Options of every launcher that runs one phase of a run."""

    resume: bool = False
    """Resume from the newest checkpoint of the phase; an error if there is none."""
    resume_if_any: bool = False
    """Resume from the newest checkpoint of the phase, or begin if there is none."""

    def __post_init__(self):
        if self.resume and self.resume_if_any:
            raise ValueError(
                "--resume needs a checkpoint, --resume-if-any begins without one; give one of them"
            )

    def resumes(self, phase: str) -> bool:
        """True if a phase continues from a checkpoint."""
        folder = self.run_dir / phase / "checkpoints"
        [exists, *_] = gather_objects(bool(saved_steps(folder)))
        if self.resume_if_any and not exists:
            display.CONSOLE.print(
                f"{phase} begins: no checkpoint in {folder}", highlight=False, soft_wrap=True
            )
        return self.resume or (self.resume_if_any and exists)


METHOD_OPTIONS = {
    "train.algorithm.name": "NAME",
    "train.algorithm.discount": "gtpo discount=…",
    "train.algorithm.shaping": "gtpo shaping=…",
    "train.algorithm.format-penalty": "gtpo format_penalty=…",
    "train.algorithm.clip-low": "gtpo + clip low=…",
    "train.algorithm.clip-high": "gtpo + clip high=…",
    "train.algorithm.kl-weight": "gtpo + kl weight=…",
    "train.algorithm.recompute": "gtpo + recompute",
    "train.algorithm.importance-limit": "gtpo + importance limit=…",
    "train.sampling-rounds": "gtpo + dynamic_sampling rounds=…",
}
"""Options that do not exist, because they are part of `--train.method` → their words there."""


def refuse_method_options(argv: Sequence[str]) -> None:
    """Raises ValueError for an option that is part of `--train.method`, and names its spelling
    there.
    """
    for word in argv:
        option = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if word.startswith("--") and option in METHOD_OPTIONS:
            raise ValueError(
                f"there is no option --{option}: it is a part of the method, as in"
                f" --train.method {METHOD_OPTIONS[option]}; python -m launch.methods lists them"
            )


A = TypeVar("A", bound=Arguments)


def parse(kind: type[A], argv: Sequence[str], *, program: str) -> A:
    """Arguments from `[PRESET] [--option value ...]`.

    Defaults are those of the run's saved config where the launcher continues a run, otherwise those
    of the preset (`tiny` if none is named).
    """
    rest = list(argv)
    named = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if named and named not in PRESETS:
        raise ValueError(f"unknown preset {named!r}; the presets are {', '.join(PRESETS)}")
    refuse_method_options(rest)
    saved = kind.begins_with(rest)
    config = _preset(named or "tiny") if saved is None else saved.read()
    if saved is not None and named and config.preset not in ("", named):
        raise ValueError(
            f"{saved.path} began with the preset {config.preset}, not {named}; leave out the preset"
            " to take the settings of the run, or choose another --run-dir"
        )
    arguments = panels.parse(
        kind,
        rest,
        prog=f"python -m {program} [{'|'.join(PRESETS)}]",
        description=f"Settings of {saved.path if saved else config.preset}. {kind.__doc__}",
        default=kind(config=config),
    )
    for name in kind.WRITES:
        place = getattr(arguments, name, None)
        if place is not None:
            option = f"--{name.replace('_', '-')}"
            faults.check_writable(option, place, folder=name == "run_dir")
    if saved is None:
        return arguments
    return dataclasses.replace(arguments, config=saved.merge(arguments.config))


def _preset(name: str) -> RunConfig:
    return dataclasses.replace(PRESETS[name], preset=name)


def command(program: str, arguments: RunArguments, *flags: str) -> str:
    """The command line that continues a run. It has no config options, because the run saves its
    config.
    """
    words = [program, *flags, "--run-dir", str(arguments.run_dir)]
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name in KEPT or value == field.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return f"python -m {shlex.join(words)}"


def main(run: Callable[[Sequence[str]], None]) -> None:
    """Runs a launcher; a user's error becomes one line instead of a traceback.

    So do a full disk or memory and a lost process (status 1), SIGTERM (75) and Ctrl-C (130).
    """
    platforms.leave_out_tpus()
    _tell_once()
    _print_in_any_encoding()
    with signals.heard():
        try:
            run(sys.argv[1:])
        except ValueError as error:
            _end(f"error: {error}", EXIT_BAD_INPUT)
        except IsolationError as error:
            _end(f"error: {error}, here --tool.allow {' '.join(error.missing)}", EXIT_BAD_INPUT)
        except SaveError as error:
            _end(f"error: {error}", EXIT_FAILED)
        except ProcessFailure as error:  # raised in every process
            _end(f"error: {error}", EXIT_FAILED, together=True)
        except signals.Preempted as stop:
            again = "nothing was saved yet; run the same command again"
            if stop.go_on:
                again = signals.how_to_go_on(stop.go_on)
            message = f"stopped by SIGTERM; {stop if stop.args else again}"
            _end(message, EXIT_PREEMPTED, together=bool(stop.args))
        except KeyboardInterrupt as stop:
            message = f"interrupted; {stop}" if stop.args else "interrupted"
            _end(message, EXIT_INTERRUPTED, together=bool(stop.args))
        except Exception as error:
            explained = faults.explain(error)
            if explained is not None:
                _end(f"error: {explained[0]}", explained[1])
            if not jax.distributed.is_initialized():
                raise
            if isinstance(error, jax.errors.JaxRuntimeError):
                reason = str(error).splitlines()[0]
                _end(f"error: {reason}; if a process was lost, go on with --resume", EXIT_FAILED)
            traceback.print_exc()
            leave(EXIT_FAILED)


def _end(message: str, status: int, *, together: bool = False) -> NoReturn:
    """Writes the message and exits. `together`: all processes end here, so they may wait for each
    other.
    """
    sys.stderr.write(message + "\n")
    if together:
        sys.exit(status)
    leave(status)


def _tell_once() -> None:
    """Silences what Orbax and TensorStore print about a failed save, because the error is raised as
    well.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    original = sys.unraisablehook

    def hook(unraisable) -> None:
        # A thread of TensorStore ended its write after another write had failed.
        if str(unraisable.exc_value) != "Event loop is closed":
            original(unraisable)

    sys.unraisablehook = hook


def _print_in_any_encoding() -> None:
    """Lets characters that the terminal's encoding lacks be printed as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes indented JSON atomically, on process 0 only, and makes the folder if it is missing."""
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
