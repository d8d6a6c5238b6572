"""Metrics as curves and key figures."""

import base64
import gzip
import json
import math
import re

import pytest

from gtpo_jax.report import panels
from gtpo_jax.report.page import build_page
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


def test_a_reader_is_warned_where_beginnings_of_right_trajectories_are_pushed_down():
    def steps(share, count=20):
        pair = {"credit/pushed_down": share, "credit/first_turn_of_right": -0.78}
        return [{"step": step, **pair} for step in range(count)]

    [warning] = panels.warnings([*steps(0.1), *steps(0.84)])
    assert "the last 10 steps, 84% of the right trajectories" in warning and "-0.78" in warning
    assert panels.warnings([*steps(0.84), *steps(0.5)]) == []
    assert panels.warnings([{"step": 1}]) == panels.warnings([]) == []
    runs = {"run": {"train": steps(0.84)}}
    page = build_page({"train": made.make_step(1)}, title="run", note="Short.", runs=runs)
    [packed] = re.findall(r'id="index">([^<]*)<', page)
    index = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert index["note"] == f"Short. {warning}"
