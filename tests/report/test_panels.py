"""Metrics as curves and key figures."""

import math

import pytest

from gtpo_jax.report import panels
from tests.report import made


def test_rollouts_and_held_out_share_a_panel():
    found = panels.panels({"run": {"train": made.make_metrics(10)}})
    assert [(p["title"], p["shown"]) for p in found] == [
        ("success", True),
        ("credit/reward", True),
        ("update/loss", False),
    ]
    rollouts, held_out = found[0]["series"]
    assert (rollouts["name"], held_out["name"]) == ("rollouts", "held out")
    assert rollouts["steps"] == list(range(1, 11)) and not rollouts["heldOut"]
    assert (held_out["steps"], held_out["values"]) == ([5, 10], [0.5, 1.0])


def test_runs_differ_by_their_number():
    runs = {name: {"train": made.make_metrics(3)} for name in "ab"}
    [_, reward, _] = panels.panels(runs)
    assert [(s["run"], s["color"]) for s in reward["series"]] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["eval/avg@4", "eval/sampled_success"], "eval/sampled_success"),
        (["eval/sampled_avg@4", "eval/maj@4"], "eval/sampled_avg@4"),
        (["rollout/success"], None),
    ],
)
def test_held_out_success_goes_by_what_there_is(names, chosen):
    metrics = [{"step": 1, "rollout/turns": 2.0}, {"step": 2} | dict.fromkeys(names, 0.5)]
    assert panels.held_out_name(metrics) == chosen


def test_values_that_are_no_numbers_are_gaps():
    metrics = [{"step": s, "x": v} for s, v in enumerate([1.0, math.nan, 3.0, math.inf])]
    assert panels.curve(metrics, "x") == {"steps": [0, 2], "values": [1.0, 3.0]}
    assert panels.curve(metrics[1:2], "x") is None


def test_long_curves_are_thinned_and_keep_their_end():
    metrics = [{"step": step, "x": float(step)} for step in range(10_001)]
    found = panels.curve(metrics, "x")
    assert found is not None and 400 < len(found["steps"]) <= panels.POINTS
    assert found["steps"][-1] == 10_000 and found["values"] == found["steps"]


def test_figures_are_the_ends_of_curves():
    figures = panels.figures(made.make_metrics(20))
    assert figures == [
        {"label": "held-out success", "first": 0.25, "since": 5, "last": 1.0, "step": 20},
        {"label": "rollout success", "first": 0.025, "since": 1, "last": 0.5, "step": 20},
    ]
    assert panels.figures([]) == []
