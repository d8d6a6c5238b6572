"""Checks which isolation this machine offers the Python tool, and that the tool works here.

python -m gtpo_jax.tools.doctor [--preload numpy,sympy] [--allow fs_read] [--json report.json]

It shows the machine and its layers of isolation, with a reason and a remedy for each absent one;
the properties that the executor enforces here; a self-test; and figures measured in a few seconds.

Exit status 0: healthy. 1: the self-test failed in part, or the tool does not start at all.
2: it works, but lacks a property that `--allow` does not name. 64: a wrong option.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

import tyro
from rich import box, markup
from rich.console import Console
from rich.table import Table

from gtpo_jax.tools import checkup, executor, limits, machine
from gtpo_jax.tools.sandbox import properties

HEALTHY, FAILED, WEAK, BAD_OPTION = 0, 1, 2, 64

_PLAIN_WIDTH = 160  # of a line where there is no terminal


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorArguments:
    """Checks which isolation this machine offers the Python tool, and that the tool works here."""

    max_running: int | None = None
    """Calls that run at a time; by default one per processor."""
    preload: str = "numpy,sympy"
    """Packages to preload, separated by commas."""
    allow: str = ""
    """Properties that may be missing, separated by commas."""
    calls: int = 200
    """Calls per measurement."""
    json: pathlib.Path | None = None
    """Also write the whole report to this file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that the doctor found."""

    host: Mapping[str, str]
    layers: Sequence[machine.Layer]
    properties: Mapping[str, str | None]  # → what holds it, or None
    missing: Sequence[str]  # properties that `allow` did not name
    allow: Sequence[str]  # the `allow` that the executor needs to start here
    self_test: Sequence[checkup.Check]
    figures: Mapping[str, tuple[float, str]]  # → value, unit
    broken: str = ""  # why the executor does not start, whatever is allowed

    @property
    def status(self) -> int:
        """The exit status."""
        if self.broken or not all(check.ok for check in self.self_test):
            return FAILED
        return WEAK if self.missing else HEALTHY


def examine(
    *, max_running: int | None, preload: Sequence[str], allow: Sequence[str], calls: int
) -> Diagnosis:
    """Surveys this machine, then starts an executor, tests it and measures it.

    Missing properties are then allowed, so that there is an executor to test. Raises `ValueError`
    for a package or a property that does not exist.
    """
    folders = executor.library_folders(preload)
    try:
        layers = machine.explain(machine.ask(folders))
    except RuntimeError as error:
        layers = (machine.Layer(name="survey", offered=False, detail=str(error)),)
    found = {"host": machine.describe(), "layers": layers}
    missing: list[str] = []
    while True:
        begin = time.perf_counter()
        try:
            tool = executor.PythonExecutor(
                max_running=max_running, preload=preload, allow=[*allow, *missing]
            )
            break
        except executor.IsolationError as error:
            missing += error.missing
        except RuntimeError as error:
            return Diagnosis(
                **found,
                properties={},
                missing=missing,
                allow=[*allow, *missing],
                self_test=(),
                figures={},
                broken=str(error),
            )
    with tool:
        figures = {"start, packages included": (time.perf_counter() - begin, "s")}
        report = tool.isolation_report()
        memory_bytes = limits.ToolLimits().memory_bytes
        checks = checkup.self_test(tool, preload, report, memory_bytes)
        if all(check.ok for check in checks):
            figures |= checkup.figures(tool, calls)
    return Diagnosis(
        **found,
        properties=report,
        missing=missing,
        allow=sorted({*allow, *missing}),
        self_test=checks,
        figures=figures,
    )


# What a person reads.


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Prints tables, then the verdict."""
    table = _table(console, "Host")
    for name, value in diagnosis.host.items():
        table.add_row(name, markup.escape(value))
    _print(table, console)

    table = _table(console, "Layers of isolation", "layer", "offered", "details", "remedy")
    for layer in diagnosis.layers:
        offered = _word(layer.offered, "yes", "no", bad="yellow")
        remedy = "\n".join(layer.remedies)
        table.add_row(layer.name, offered, markup.escape(layer.detail), markup.escape(remedy))
    _print(table, console)

    if diagnosis.broken:
        console.print(f"[red]The executor does not start:[/red] {markup.escape(diagnosis.broken)}")
        return

    table = _table(console, "Properties", "property", "meaning", "held by")
    for name, held_by in diagnosis.properties.items():
        held = "[red]MISSING[/red]" if held_by is None else markup.escape(held_by)
        table.add_row(name, properties.PROPERTIES[name], held)
    _print(table, console)

    table = _table(console, "Self-test", "check", "result", "seen")
    for check in diagnosis.self_test:
        result = _word(check.ok, "ok", "FAILED", bad="red")
        table.add_row(check.name, result, markup.escape(check.detail))
    _print(table, console)

    table = _table(console, "Figures", "figure", "value", "unit")
    for name, (value, unit) in diagnosis.figures.items():
        table.add_row(name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", unit)
    _print(table, console)
    for line in verdict(diagnosis):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def verdict(diagnosis: Diagnosis) -> list[str]:
    """The conclusion, in plain lines."""
    lines = []
    if diagnosis.status == FAILED:
        lines.append("The executor starts here but does not work as it should; see the self-test.")
    allow = tuple(diagnosis.allow)
    if diagnosis.missing:
        lines.append(f"The executor refuses to start: {', '.join(diagnosis.missing)} missing.")
        if sys.platform != "linux":
            lines.append(
                "It isolates calls on Linux alone, on x86-64 and aarch64; nothing is protected"
                " here."
            )
        lines.append(f"To run code that you trust all the same: PythonExecutor(allow={allow!r})")
    elif diagnosis.status == HEALTHY:
        given = f"allow={allow!r}" if allow else ""
        lines.append(f"Healthy: PythonExecutor({given}) starts and works here.")
    return lines


def _table(console: Console, title: str, *columns: str) -> Table:
    style = box.ROUNDED if console.is_terminal else None
    table = Table(title=title, title_justify="left", box=style, show_header=bool(columns))
    for column in columns or ("", ""):
        table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
    return table


def _print(table: Table, console: Console) -> None:
    console.print(table, highlight=False)
    console.print()


def _word(good: bool, yes: str, no: str, *, bad: str) -> str:
    return yes if good else f"[{bad}]{no}[/{bad}]"


# What a machine reads.


def as_json(diagnosis: Diagnosis) -> str:
    record = dataclasses.asdict(diagnosis)
    for part, entries in (("layers", record["layers"]), ("self_test", record["self_test"])):
        record[part] = {entry.pop("name"): entry for entry in entries}
    record["figures"] = {
        name: {"value": value, "unit": unit} for name, (value, unit) in record["figures"].items()
    }
    return json.dumps(record | {"exit_status": diagnosis.status}, indent=2) + "\n"


# The command line.


def main(argv: Sequence[str]) -> int:
    """Runs the doctor and returns the exit status."""
    try:
        arguments = tyro.cli(
            DoctorArguments,
            args=list(argv),
            prog="python -m gtpo_jax.tools.doctor",
            description=__doc__,
        )
    except SystemExit as stop:
        return BAD_OPTION if stop.code else HEALTHY
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    try:
        diagnosis = examine(
            max_running=arguments.max_running,
            preload=_names(arguments.preload),
            allow=_names(arguments.allow),
            calls=arguments.calls,
        )
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_OPTION
    show(diagnosis, console)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(as_json(diagnosis), encoding="utf-8")
    return diagnosis.status


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
