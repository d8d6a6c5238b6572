"""Command lines: a preset, then overrides. Bad input is one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import tyro

from configs.presets import PRESETS
from configs.schema import RunConfig
from gtpo_jax.tools import IsolationError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What every launcher takes."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments(Arguments):
    """What every launcher takes that works on a run."""

    run_dir: pathlib.Path = pathlib.Path("runs/mine")
    """Folder of the run: config, tokenizer, checkpoints, metrics, pictures."""
    json: pathlib.Path | None = None
    """Also write the figures to this file."""


A = TypeVar("A", bound=Arguments)


def parse(kind: type[A], argv: Sequence[str], *, program: str) -> A:
    """Arguments from `[PRESET] [--option value ...]`; without a preset it is `tiny`."""
    rest = list(argv)
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else "tiny"
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; the presets are {', '.join(PRESETS)}")
    default = kind(config=PRESETS[preset])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                kind,
                args=rest,
                default=default,
                prog=f"python -m {program} [{'|'.join(PRESETS)}]",
                description=f"Preset {preset}. {kind.__doc__}",
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(errors.getvalue())) from None
        raise


def _one_line(panel: str) -> str:
    """The message of a tyro error panel, and the options it suggests."""
    lines = [line.strip("╭╮╰╯│─ ") for line in panel.splitlines()[1:]]
    message = [line for line in lines[: lines.index("")] if line] if "" in lines else lines
    suggested = [line.split()[0] for line in lines if line.startswith("--")]
    hint = f"; perhaps {' or '.join(dict.fromkeys(suggested))}" if suggested else ""
    return f"{' '.join(message)}{hint}; --help lists every option"


def main(run: Callable[[Sequence[str]], None]) -> None:
    """Runs a launcher; what the user got wrong becomes one line instead of a traceback."""
    try:
        run(sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_BAD_INPUT)
    except IsolationError as error:
        sys.stderr.write(f"error: {error}, here --tool.allow {' '.join(error.missing)}\n")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"interrupted; {interrupt}\n" if interrupt.args else "interrupted\n")
        sys.exit(EXIT_INTERRUPTED)


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes indented JSON in one step, the folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
