"""Replays reports of users and counts how many give the expected result.

python -m benchmarks.cases REPORTS.jsonl --json figures.json

A file has one case per line: `area`, `kind`, `input`, `expected`. The adapter of an area does with
the input what a user did. An input that is prose cannot be replayed and is counted separately, as
is a case of `decisions.py`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import tyro
from rich.table import Table

from benchmarks.cases import files, folders, programs, runs, scenes, texts
from benchmarks.cases.decisions import DECISIONS
from benchmarks.cases.row import Adapter, Row, agrees, read_rows
from benchmarks.figures import Figure, publish
from launch import cli
from launch.run import display

RESULTS = ("right", "otherwise", "prose", "wrong")
"""Results of a case: as expected, as decided, not replayed, neither."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CasesArguments:
    """Replays reports of users."""

    reports: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Files of cases, one JSON object per line."""
    areas: tuple[str, ...] = ()
    """Prefixes of the areas to replay. Empty: all."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


def replay(rows: Sequence[Row]) -> list[tuple[Row, str, object]]:
    """Each case, its result (one of `RESULTS`), and the actual outcome where it differs from the
    expected.
    """
    replayed = []
    with contextlib.ExitStack() as stack:
        adapters: dict[str, Adapter] = {}
        for module in (texts, programs, files, folders, scenes, runs):
            adapters |= stack.enter_context(module.adapters())
        for row in rows:
            # `verifier numeric (what the mapping names)`: an area may say more than its name.
            adapter = adapters.get(row.area.partition(" (")[0])
            got = None if adapter is None else adapter(row.input)
            if got is None:
                result = "prose"
            elif agrees(row.expected, got):
                result = "right"
            else:
                result = "otherwise" if row.key in DECISIONS else "wrong"
            replayed.append((row, result, got))
    return replayed


def run(argv: Sequence[str]) -> None:
    arguments = tyro.cli(CasesArguments, args=list(argv), prog="python -m benchmarks.cases")
    rows = [row for path in arguments.reports for row in read_rows(path)]
    rows = [row for row in rows if row.area.startswith(arguments.areas or "")]
    replayed = replay(rows)
    for row, result, got in replayed:
        if result in ("wrong", "prose"):
            because = "an input in prose" if result == "prose" else f"expected {row.expected!r}"
            display.CONSOLE.print(
                f"{row.place}, {row.area}: {because}\n  {row.key[1]}"
                + (f"\n  got {got!r}" if result == "wrong" else ""),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    display.CONSOLE.print(_table(replayed))
    counts = collections.Counter(result for _, result, _ in replayed)
    publish(
        {
            "cases replayed": Figure(value=len(rows) - counts["prose"], unit="cases"),
            "neither right nor decided otherwise": Figure(
                value=counts["wrong"], unit="cases", at_most=0
            ),
            "decided otherwise": Figure(value=counts["otherwise"], unit="cases"),
            "in prose, not replayed": Figure(value=counts["prose"], unit="cases"),
        },
        arguments.json,
    )


def _table(replayed: Sequence[tuple[Row, str, object]]) -> Table:
    table = Table("area", *RESULTS)
    counts: dict[str, collections.Counter[str]] = {}
    for row, result, _ in replayed:
        area = row.area.partition(" (")[0]
        counts.setdefault(area, collections.Counter())[result] += 1
    for area, results in counts.items():
        table.add_row(area, *(str(results[name] or "") for name in RESULTS))
    return table


if __name__ == "__main__":
    cli.main(run)
