"""The suite: every method in every world, over many seeds; a cell at a time, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gtpo_jax.lab import episodes, learning, statistics
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.policies import Policy, table
from gtpo_jax.lab.statistics import Interval
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.methods import Method

WINDOW = 10
"""Updates over which a measure at a budget is averaged, up to the budget."""

COLLAPSE = 0.2
"""A seed collapses if its success ends this much below its best."""

FORMAT = 2
"""Version of the files of cells."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A method or a world, and the words that it is spelled with."""

    name: str
    value: Any

    @property
    def method(self) -> Method:
        return self.value

    @property
    def world(self) -> World:
        return self.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The result of a method in a world: one number per seed of each measure."""

    method: str
    world: str
    updates: int
    budgets: tuple[int, ...]
    measures: dict[str, list[float]]
    """Name → values by seed: `solved@N` and `learned@N` for each budget, at the end the measures of
    `learning.Curves`, and `collapsed`."""
    curve: list[float]  # mean success before each update, of the policy that is trained
    seconds: float

    def interval(self, measure: str) -> Interval:
        """Mean and interval over seeds."""
        return statistics.bootstrap(self.measures[measure])


class Missing(NamedTuple):
    """A pair that cannot run: the world lacks a fact that the method needs."""

    method: str
    world: str
    facts: tuple[str, ...]


def run_suite(
    methods: Sequence[Arm],
    worlds: Sequence[Arm],
    *,
    seeds: Sequence[int],
    settings: Settings,
    folder: pathlib.Path,
    budgets: Sequence[int] = (30, 60),
    policy: Policy | None = None,
) -> Iterator[Cell | Missing]:
    """Yields every cell, world by world; cells whose file is there are read instead of run."""
    for world in worlds:
        for method in methods:
            lacking = missing_facts(method.method, world.world)
            if lacking:
                yield Missing(method.name, world.name, lacking)
                continue
            options = {
                "format": FORMAT,
                "method": method.name,
                "world": world.name,
                "seeds": list(map(int, seeds)),
                "budgets": list(budgets),
                "settings": dataclasses.asdict(settings),
            }
            path = folder / cell_name(options)
            cell = read_cell(path)
            if cell is None:
                cell = run_cell(
                    method, world, seeds=seeds, settings=settings, budgets=budgets, policy=policy
                )
                write_cell(path, cell, options)
            yield cell


def missing_facts(method: Method, world: World) -> tuple[str, ...]:
    """Facts that a method needs and a world does not provide."""
    known = episodes.known_facts(world)
    return tuple(fact.name for fact in method.facts if fact.name not in known)


def run_cell(
    method: Arm,
    world: Arm,
    *,
    seeds: Sequence[int],
    settings: Settings,
    budgets: Sequence[int],
    policy: Policy | None = None,
) -> Cell:
    """Trains the method in the world for all seeds, and measures."""
    began = time.monotonic()
    curves = learning.learn(
        world.world, method.method, seeds=seeds, settings=settings, policy=policy or table()
    )
    curves = jax.tree.map(np.asarray, jax.device_get(curves))
    return Cell(
        method=method.name,
        world=world.name,
        updates=settings.updates,
        budgets=tuple(budgets),
        measures=measures(curves, budgets),
        curve=[round(float(x), 5) for x in curves.learned.mean(axis=0)],
        seconds=time.monotonic() - began,
    )


def measures(curves: learning.Curves, budgets: Iterable[int]) -> dict[str, list[float]]:
    """The measures of a cell, one number per seed."""
    updates = curves.solved.shape[1]

    def upto(values: np.ndarray, budget: int) -> list[float]:
        return [round(float(x), 6) for x in values[:, max(0, budget - WINDOW) : budget].mean(1)]

    found = {
        f"{name}@{budget}": upto(np.asarray(getattr(curves, name)), budget)
        for name in ("solved", "learned")
        for budget in budgets
        if budget <= updates
    }
    for name, values in curves._asdict().items():
        found[name] = upto(np.asarray(values), updates)
    kernel = np.ones(min(WINDOW, updates)) / min(WINDOW, updates)
    smooth = np.array([np.convolve(row, kernel, "valid") for row in curves.solved])
    fallen = smooth.max(axis=1) - smooth[:, -1] > COLLAPSE
    found["collapsed"] = [float(x) for x in fallen]
    return found


def cell_name(options: dict[str, Any]) -> str:
    """The name of the file of a cell, different for different options."""
    text = json.dumps(options, sort_keys=True)
    words = f"{options['world']}--{options['method']}"
    slug = "".join(c if c.isalnum() or c in "-_." else "-" for c in words)[:80]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def write_cell(path: pathlib.Path, cell: Cell, options: dict[str, Any]) -> None:
    """Writes a cell; the file gets its name once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    record = {"options": options, "cell": dataclasses.asdict(cell)}
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(path)


def read_cell(path: pathlib.Path) -> Cell | None:
    """The cell of a file; None if there is none."""
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))["cell"]
    return Cell(**{**record, "budgets": tuple(record["budgets"])})
