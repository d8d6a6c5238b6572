"""Converts the metrics of a run to the curves and key figures of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Metrics = Sequence[Mapping[str, float]]

POINTS = 800
"""Maximum number of points of a curve; a longer one is thinned evenly and keeps its last point."""

HELD_OUT = ("eval/sampled_success", "eval/success")
"""Metrics of held-out success, in order of preference; see `held_out_name`."""

TOGETHER = {
    "success": ("rollout/success", "held out"),
    "violations": ("rollout/violations", "eval/sampled_violations"),
}
"""Title of a panel with several metrics → these metrics."""

SHOWN = ("success", "credit/reward", "violations", "rollout/tool_errors", "rollout/turns")
SHOWN += ("rollout/entropy",)
"""Panels that a page shows first; the others are a click away."""


def held_out_name(metrics: Metrics) -> str | None:
    """Name of the metric of success on held-out problems: one sample, or the mean over samples."""
    names = {name for record in metrics for name in record}
    known = [name for name in HELD_OUT if name in names]
    averages = sorted(name for name in names if name.startswith("eval/") and "avg@" in name)
    return next(iter([*known, *averages]), None)


def curve(metrics: Metrics, name: str) -> dict[str, list] | None:
    """Steps and finite values of a metric; None if there are none."""
    points = [
        (record["step"], record[name])
        for record in metrics
        if name in record and math.isfinite(record[name])
    ]
    if not points:
        return None
    stride = -(-len(points) // POINTS)
    points = points[::-1][::stride][::-1]
    return {
        "steps": [step for step, _ in points],
        "values": [float(f"{value:.5g}") for _, value in points],
    }


def panels(runs: Mapping[str, Mapping[str, Metrics]]) -> list[dict]:
    """The panels of `runs[run][phase]`: those in `SHOWN` first, then the others by name."""
    grouped: dict[tuple[str, str], list[dict]] = {}
    for number, (run, phases) in enumerate(runs.items()):
        for phase, metrics in phases.items():
            held_out = held_out_name(metrics)
            names = dict.fromkeys(name for record in metrics for name in record if name != "step")
            for name in names:
                series = curve(metrics, name)
                if series is None:
                    continue
                title, label = _place(name, held_out)
                series |= {"name": label, "run": run, "color": number}
                series["heldOut"] = name.startswith("eval/")
                grouped.setdefault((phase, title), []).append(series)
    made = [
        {"phase": phase, "title": title, "shown": title in SHOWN, "series": series}
        for (phase, title), series in grouped.items()
    ]
    return sorted(made, key=_order)


def _place(name: str, held_out: str | None) -> tuple[str, str]:
    """Title of the panel of a metric, and the label of its curve."""
    known = "held out" if name == held_out else name
    for title, names in TOGETHER.items():
        if known in names:
            return title, "held out" if name.startswith("eval/") else "rollouts"
    return name, name


def _order(panel: Mapping) -> tuple:
    title = panel["title"]
    shown = SHOWN.index(title) if title in SHOWN else len(SHOWN)
    return shown, panel["phase"], title


WARNED = 10
"""Number of last steps from which warnings are taken."""


def warnings(metrics: Metrics) -> list[str]:
    """Sentences about a training phase that a reader should not miss."""
    last = [record for record in metrics if "credit/pushed_down" in record][-WARNED:]
    if not last:
        return []

    def mean(name: str) -> float:
        return sum(record[name] for record in last) / len(last)

    share = mean("credit/pushed_down")
    if not share > 0.5:
        return []
    return [
        f"Warning: over the last {len(last)} steps, {share:.0%} of the right trajectories of"
        " several turns had a negative advantage on their first turn (mean"
        f" {mean('credit/first_turn_of_right'):+.2f}), so training makes the beginnings of right"
        " answers less likely. Group statistics with a discount do this; docs/lab.md compares"
        " the readings."
    ]


FIGURES = {
    "held-out success": None,
    "rollout success": "rollout/success",
    "violations": "rollout/violations",
    "turns": "rollout/turns",
    "tool errors": "rollout/tool_errors",
    "tokens": "rollout/tokens",
}


def figures(metrics: Metrics) -> list[dict]:
    """Key figures of a training phase: first and last value, with their steps."""
    rows = []
    for label, name in FIGURES.items():
        name = name or held_out_name(metrics)
        series = None if name is None else curve(metrics, name)
        if series is not None:
            steps, values = series["steps"], series["values"]
            ends = {"first": values[0], "since": steps[0], "last": values[-1], "step": steps[-1]}
            rows.append({"label": label} | ends)
    return rows
