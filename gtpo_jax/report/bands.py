"""Learning curves of several runs: runs that differ only by their seed form one band."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.table import Table

from gtpo_jax.report.panels import Metrics, held_out_name

COLORS = ("#1f5fa8", "#c8553d", "#1b8a72", "#a14a93", "#8a6d00", "#5a6570")
MARKED = 30
"""Maximum number of points of a curve that get markers."""
FIGURES = {
    "success, held out": None,
    "success, rollouts": "rollout/success",
    "violations, rollouts": "rollout/violations",
}
"""Title of a panel → its metric; None: the held-out success of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run to compare."""

    name: str
    settings: Mapping  # nested, as saved by the training phase, with a `seed`
    metrics: Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """The values of several runs at their common steps."""

    steps: list[int]
    values: list[list[float]]  # for each step, one value per run

    @property
    def means(self) -> list[float]:
        return [statistics.mean(values) for values in self.values]


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs whose settings are equal except for the seed.

    A group is named by its method with its options and, if several groups share it, by the
    differing settings.
    """
    flat = [_flat(run.settings) for run in runs]
    for each in flat:
        each.pop("seed", None)
    names = dict.fromkeys(name for each in flat for name in each)
    differing = [name for name in names if len({str(each.get(name)) for each in flat}) > 1]
    groups: dict[tuple, list[Run]] = {}
    for run, each in zip(runs, flat, strict=True):
        groups.setdefault(tuple(str(each.get(name)) for name in differing), []).append(run)
    methods = {
        key: " ".join(_flat(members[0].settings).get("train.method", ["run"]))
        for key, members in groups.items()
    }
    labels = {}
    for key, members in groups.items():
        alike = [other for other in groups if methods[other] == methods[key]]
        apart = [
            f"{name.split('.')[-1]} {key[i]}"
            for i, name in enumerate(differing)
            if any(other[i] != key[i] for other in alike)
        ]
        labels[", ".join([methods[key], *apart])] = members
    return labels


def _flat(settings: Mapping, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def band(runs: Sequence[Run], metric: str | None) -> Band | None:
    """The values of a metric over runs; None if they have no step in common."""
    curves = []
    for run in runs:
        name = metric or held_out_name(run.metrics)
        curves.append({r["step"]: r[name] for r in run.metrics if name is not None and name in r})
    steps = sorted(set.intersection(*map(set, curves)))
    if not steps:
        return None
    return Band(steps=steps, values=[[curve[step] for curve in curves] for step in steps])


def bands(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Band]]:
    """The bands `[title][group]` of all panels that some group has values for."""
    panels = {
        title: {
            name: made
            for name, members in groups.items()
            if (made := band(members, metric)) is not None
        }
        for title, metric in FIGURES.items()
    }
    return {title: curves for title, curves in panels.items() if curves}


def plot_comparison(groups: Mapping[str, Sequence[Run]], path: str | pathlib.Path) -> None:
    """Draws the mean over the runs of each group, and the range from lowest to highest.

    Raises `ValueError` if no group has a metric to draw.
    """
    made = bands(groups)
    if not made:
        raise ValueError(
            f"no step that the runs have in common in {', '.join(groups)}: nothing to draw"
        )
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(groups)}
    size = (3.8 * len(made), 3.6)
    figure, grid = plt.subplots(
        1, len(made), figsize=size, dpi=150, layout="constrained", squeeze=False
    )
    for axes, (title, curves) in zip(grid[0], made.items(), strict=True):
        for name, curve in curves.items():
            color, label = colors[name], f"{name} (n = {len(groups[name])})"
            marker = "o" if len(curve.steps) <= MARKED else None
            axes.plot(
                curve.steps, curve.means, color=color, marker=marker, markersize=4, label=label
            )
            low, high = [list(map(end, curve.values)) for end in (min, max)]
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.18, linewidth=0)
        axes.set(xlabel="step", title=title, ylim=(0, 1.02))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("share of trajectories")
    drawn = [len(curves) for curves in made.values()]
    grid[0][drawn.index(max(drawn))].legend(frameon=False, loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def endings() -> tuple[str, ...]:
    """Supported suffixes of image files."""
    return tuple(f".{kind}" for kind in sorted(FigureCanvasAgg.get_supported_filetypes()))


def comparison_table(groups: Mapping[str, Sequence[Run]]) -> Table:
    """A table of mean ± standard deviation at the last common step of each group."""
    made = bands(groups)
    table = Table(title="at the last common step, mean ± std over runs")
    for column in ("settings", "runs", "seeds", *made):
        table.add_column(column, justify="left" if column == "settings" else "right")
    for name, members in groups.items():
        cells = [_cell(made[title].get(name)) for title in made]
        table.add_row(name, str(len(members)), ", ".join(_seeds(members)), *cells)
    return table


def _seeds(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        yield str(run.settings.get("seed", "?"))


def _cell(curve: Band | None) -> str:
    if curve is None:
        return "–"
    last = curve.values[-1]
    spread = f" ± {statistics.stdev(last):.3f}" if len(last) > 1 else ""
    return f"{statistics.mean(last):.3f}{spread} (step {curve.steps[-1]})"
