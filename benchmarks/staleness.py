"""Losses for stale and perturbed samplers, in the laboratory.

python -m benchmarks.staleness --json figures.json

First plain methods are searched for a setting in which an old and noisy sampler costs them a tenth
of their success (`benchmarks.staleness_settings` holds the rule). There every correction runs once,
beside its plain method, with samplers of several ages with and without noise. Finished runs are
kept, so the same command continues. Two runs go at a time.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from rich.table import Table

from benchmarks import staleness_page
from benchmarks.figures import Figure
from benchmarks.measure import run_benchmark
from benchmarks.staleness_page import kept
from benchmarks.staleness_settings import (
    CORRECTED,
    LOST,
    OTHERS,
    PLAIN,
    WORLDS,
    Tried,
    choose,
    compared,
    grid,
)
from configs.methods import make_method, split
from configs.worlds import make_world
from gtpo_jax.lab import learning, statistics
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.suite import Cell
from launch import cli
from launch.run import display

A = TypeVar("A")
B = TypeVar("B")

KEPT = 0.95
"""Share of the success on policy that a correction must keep."""

WINDOW = 10
"""Updates at the end over which success is averaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StalenessArguments:
    """Corrections for samplers that are old and noisy."""

    seeds: int = 128
    search_seeds: int = 16
    """Seeds of the search, which are no seeds of the comparison."""
    updates: int = 100
    only: tuple[str, ...] = ()
    """Methods to compare, spelled in full; none: all."""
    folder: pathlib.Path = pathlib.Path("runs/staleness")
    """Folder of finished runs."""
    write: bool = False
    """Write docs/lab-staleness.md and its picture too."""
    json: pathlib.Path | None = None
    """File for the figures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A method in a world at several points; lists by point."""

    ends: list[list[float]]  # success of the trained policy at the end, by seed
    curves: list[list[float]]  # its mean over seeds, before each update
    seconds: float


def run(
    method: str,
    world: str,
    points: Sequence[Settings],
    seeds: Sequence[int],
    folder: pathlib.Path,
) -> Run:
    """The runs of a method, read if they are there."""
    options = {
        "method": method,
        "world": world,
        "points": [dataclasses.asdict(point) for point in points],
        "seeds": list(seeds),
    }
    key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"{''.join(c if c.isalnum() else '-' for c in method)}-{key}.json"
    if path.exists():
        return Run(**json.loads(path.read_text(encoding="utf-8"))["run"])
    began = time.monotonic()
    curves = learning.sweep(
        make_world(split(world)), make_method(split(method)), points, seeds=seeds
    )
    learned = np.asarray(curves.learned, np.float64)
    found = Run(
        ends=np.round(learned[:, :, -WINDOW:].mean(axis=2), 6).tolist(),
        curves=np.round(learned.mean(axis=1), 5).tolist(),
        seconds=time.monotonic() - began,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    record = {"options": options, "run": dataclasses.asdict(found)}
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(path)
    return found


def search(arguments: StalenessArguments) -> list[Tried]:
    """Plain methods at every point of the grid, in every world."""
    points = grid(arguments.updates)
    seeds = range(1000, 1000 + arguments.search_seeds)
    arms = [(method, world) for world in WORLDS for method in PLAIN]

    def one(arm: tuple[str, str]) -> list[Tried]:
        method, world = arm
        found = run(method, world, points, seeds, arguments.folder)
        on_policy = {
            point.learning_rate: ends
            for point, ends in zip(points, found.ends, strict=True)
            if not point.staleness
        }
        return [
            Tried(
                world=world,
                method=method,
                settings=point,
                on_policy=float(np.mean(on_policy[point.learning_rate])),
                kept=statistics.ratio(ends, on_policy[point.learning_rate]),
            )
            for point, ends in zip(points, found.ends, strict=True)
            if point.staleness
        ]

    return [tried for found in two_at_a_time("search", one, arms) for tried in found]


def compare(arguments: StalenessArguments, world: str, chosen: Settings) -> list[Cell]:
    """Every method with every sampler: cells whose world is the name of the sampler.

    Measures are `success`, and `on_policy`, the plain method's success on policy, by seed.
    """
    points = compared(chosen)
    parents = {
        method: plain
        for plain in PLAIN
        for method in (plain, *CORRECTED[plain], *OTHERS.get(plain, ()))
    }
    chosen_methods = [m for m in parents if not arguments.only or m in arguments.only or m in PLAIN]
    seeds = range(arguments.seeds)

    def one(method: str) -> Run:
        return run(method, world, list(points.values()), seeds, arguments.folder)

    runs = dict(zip(chosen_methods, two_at_a_time("methods", one, chosen_methods), strict=True))
    return [
        Cell(
            method=method,
            world=name,
            updates=arguments.updates,
            budgets=(),
            measures={"success": ends, "on_policy": runs[parents[method]].ends[0]},
            curve=curve,
            seconds=found.seconds,
        )
        for method, found in runs.items()
        for name, ends, curve in zip(points, found.ends, found.curves, strict=True)
    ]


def two_at_a_time(title: str, function: Callable[[A], B], arms: Sequence[A]) -> list[B]:
    """The results of a function, in order; two calls at a time, since each leaves a core idle."""
    results: list[B] = []
    with (
        display.working(title, len(arms)) as tell,
        concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool,
    ):
        for count, result in enumerate(pool.map(function, arms), 1):
            results.append(result)
            tell(count)
    return results


def figures_of(cells: Sequence[Cell], sampler: str) -> dict[str, Figure]:
    """The figures of the bar, with one sampler."""
    shares = {cell.method: kept(cell).mean for cell in cells if cell.world == sampler}
    figures = {
        f"lost_by_{plain}": Figure(
            value=1.0 - shares[plain], unit="share of success", at_least=LOST
        )
        for plain in PLAIN
    }
    for plain in PLAIN:
        for method in CORRECTED[plain]:
            if method in shares:
                figures[f"kept_by_{slug(method)}"] = Figure(
                    value=shares[method], unit="share of success", at_least=KEPT
                )
    return figures


def slug(method: str) -> str:
    """The words of a spelling, joined."""
    return "_".join(word for word in method.replace("=", " ").split() if word != "+")


def measure(arguments: StalenessArguments) -> tuple[dict[str, Figure], list[str]]:
    began = time.monotonic()
    tried = search(arguments)
    found = choose(tried)
    figures = {"settings_tried": Figure(value=len(tried) / len(PLAIN), unit="settings")}
    cells: list[Cell] = []
    if found is None:
        notes = [f"no setting makes {' and '.join(PLAIN)} lose {LOST:.0%}; see the table"]
    else:
        world, chosen = found
        notes = [f"chosen: {world}, {staleness_page.spell(chosen)}"]
        cells = compare(arguments, world, chosen)
        name = next(name for name, point in compared(chosen).items() if point == chosen)
        figures |= figures_of(cells, name)
        display.CONSOLE.print(table_of(cells))
    if arguments.write:
        staleness_page.write(tried, found, cells, seeds=arguments.seeds, updates=arguments.updates)
    notes.append(f"{time.monotonic() - began:.0f} s")
    return figures, notes


def table_of(cells: Sequence[Cell]) -> Table:
    """The shares that methods keep, for people."""
    samplers = list(dict.fromkeys(cell.world for cell in cells))
    rows: Mapping[str, list[str]] = {cell.method: [] for cell in cells}
    for cell in cells:
        rows[cell.method].append(f"{kept(cell).mean:.3f}")
    table = Table(title="share of the success on policy")
    for head in ("method", *samplers):
        table.add_column(head)
    for method, shares in rows.items():
        table.add_row(method, *shares)
    return table


def main(argv: Sequence[str]) -> None:
    run_benchmark(StalenessArguments, measure, argv, "benchmarks.staleness")


if __name__ == "__main__":
    cli.main(main)
