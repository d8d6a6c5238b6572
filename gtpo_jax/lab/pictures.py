"""Pictures of the suite: a map of success, and a profile of each method."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from gtpo_jax.lab.suite import Cell


def names(cells: Sequence[Cell]) -> tuple[list[str], list[str]]:
    """Methods and worlds in the order of first mention."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    worlds = list(dict.fromkeys(cell.world for cell in cells))
    return methods, worlds


def grid(cells: Sequence[Cell], measure: str) -> np.ndarray:
    """Means `[methods, worlds]` of a measure; NaN where there is no cell."""
    methods, worlds = names(cells)
    values = np.full((len(methods), len(worlds)), np.nan)
    for cell in cells:
        row, column = methods.index(cell.method), worlds.index(cell.world)
        values[row, column] = float(np.mean(cell.measures[measure]))
    return values


def draw_map(cells: Sequence[Cell], measure: str, path: pathlib.Path, *, title: str) -> None:
    """A map of a measure between 0 and 1: a row for each method, a column for each world."""
    methods, worlds = names(cells)
    values = grid(cells, measure)
    size = (2.5 + 0.75 * len(worlds), 1.6 + 0.3 * len(methods))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        color = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(worlds)), worlds, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def draw_profiles(cells: Sequence[Cell], measure: str, path: pathlib.Path) -> None:
    """A profile of each method: in each world its share of the way from the worst to the best."""
    methods, worlds = names(cells)
    values = grid(cells, measure)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    share = (values - low) / np.maximum(high - low, 1e-9)
    columns = min(4, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure, grid_axes = plt.subplots(
        rows,
        columns,
        figsize=(2.7 * columns, 2.6 * rows),
        subplot_kw={"projection": "polar"},
        layout="constrained",
        squeeze=False,
    )
    angles = np.linspace(0, 2 * np.pi, len(worlds), endpoint=False)
    for axes, method, spokes in zip(grid_axes.flat, methods, share, strict=False):
        known = np.where(np.isfinite(spokes), spokes, 0.0)
        axes.fill(angles, known, alpha=0.35)
        axes.plot([*angles, angles[0]], [*known, known[0]], linewidth=1)
        axes.set_xticks(angles, worlds, fontsize=5)
        axes.set_yticks([0.5, 1.0], ["", ""])
        axes.set_ylim(0, 1.05)
        axes.set_title(method, fontsize=7)
    for axes in list(grid_axes.flat)[len(methods) :]:
        axes.set_visible(False)
    _save(figure, path)


def draw_curves(cells: Sequence[Cell], path: pathlib.Path) -> None:
    """Success over updates: one panel for each world, one line for each method."""
    methods, worlds = names(cells)
    columns = min(3, len(worlds))
    rows = math.ceil(len(worlds) / columns)
    figure, grid_axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 2.8 * rows), layout="constrained", squeeze=False
    )
    colors = plt.get_cmap("tab20")
    for axes, world in zip(grid_axes.flat, worlds, strict=False):
        for cell in (cell for cell in cells if cell.world == world):
            number = methods.index(cell.method)
            axes.plot(cell.curve, label=cell.method, color=colors(number % 20), linewidth=1)
        axes.set_title(world, fontsize=9)
        axes.set_ylim(0, 1.02)
    for axes in list(grid_axes.flat)[len(worlds) :]:
        axes.set_visible(False)
    handles, labels = grid_axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    _save(figure, path)


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
