"""Figures with their bars: a table for people, JSON for machines."""

from __future__ import annotations

import dataclasses
import pathlib

from rich.table import Table

from launch import cli
from launch.run import display


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value (None: not measured) and the interval it should lie in, if any."""

    value: float | None
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bar(self) -> str:
        bounds = {">=": self.at_least, "<=": self.at_most}
        return " and ".join(f"{sign} {x:g}" for sign, x in bounds.items() if x is not None)

    @property
    def holds(self) -> bool | None:
        if self.value is None or not self.bar:
            return None
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below


def publish(figures: dict[str, Figure], path: pathlib.Path | None) -> None:
    """Prints the table; with a path, writes `{"figures": {name: {value, unit, bar, holds}}}`."""
    table = Table()
    for column in ("figure", "value", "unit", "bar", "holds"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, figure in figures.items():
        value = "not measured" if figure.value is None else f"{figure.value:.4g}"
        holds = {None: "-", True: "yes", False: "[red]no[/red]"}[figure.holds]
        table.add_row(name, value, figure.unit, figure.bar, holds)
    display.CONSOLE.print(table)
    if path is not None:
        record = {
            name: {
                "value": figure.value,
                "unit": figure.unit,
                "bar": figure.bar,
                "holds": figure.holds,
            }
            for name, figure in figures.items()
        }
        cli.write_json(path, {"figures": record})
