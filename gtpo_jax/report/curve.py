"""The learning curve of a run as a PNG."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROLLOUT, HELD_OUT, VIOLATIONS = "#9bbfe0", "#1f5fa8", "#c8553d"


def plot_learning_curve(
    metrics: Sequence[Mapping[str, float]],
    path: str | pathlib.Path,
    *,
    cold_start: Mapping[str, float] | None = None,
    title: str = "GTPO",
) -> None:
    """Draws success of rollouts and on held-out problems, and format violations, over steps.

    `metrics` are the records of a training phase (`metrics.read_metrics`); `cold_start` holds the
    held-out `success` and `violations` before the first step.
    """
    steps = [record["step"] for record in metrics]
    evaluated = [record for record in metrics if "eval/sampled_success" in record]
    at = [record["step"] for record in evaluated]
    success = [record["eval/sampled_success"] for record in evaluated]
    violations = [record["eval/sampled_violations"] for record in evaluated]
    if cold_start is not None:
        at, success = [0, *at], [cold_start["success"], *success]
        violations = [cold_start["violations"], *violations]

    figure, axes = plt.subplots(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    rollouts = [record["rollout/success"] for record in metrics]
    axes.plot(steps, rollouts, color=ROLLOUT, linewidth=1, label="success, rollouts")
    axes.plot(at, success, color=HELD_OUT, marker="o", linewidth=2, label="success, held out")
    axes.plot(at, violations, color=VIOLATIONS, marker="s", label="format violations, held out")
    axes.set(xlabel="step", ylabel="share of trajectories", ylim=(0, 1.02), title=title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center right")
    figure.savefig(path)
    plt.close(figure)
