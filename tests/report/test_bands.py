"""Curves of several runs: their groups, their bands, and the figure."""

import copy
import io

import pytest
from rich.console import Console

from gtpo_jax.report import bands

SETTINGS = {
    "seed": 0,
    "task": {"families": ["a"]},
    "train": {"steps": 4, "method": ["gtpo"], "optimizer": {"discount": 0.9}},
}


def make_run(name="run", *, shift=0.0, steps=4, metric="eval/sampled_success", **changed):
    settings = copy.deepcopy(SETTINGS)
    for key, value in changed.items():
        if key == "seed":
            settings["seed"] = value
        else:
            settings["train"]["optimizer"][key] = value
    metrics = [{"step": s, "rollout/success": s / 10 + shift} for s in range(1, steps + 1)]
    for record in metrics[1::2]:
        record[metric] = record["rollout/success"] / 2
    return bands.Run(name=name, settings=settings, metrics=metrics)


def grouped(*runs):
    return {label: [r.name for r in group] for label, group in bands.group_runs(runs).items()}


def test_seeds_are_no_difference():
    assert grouped(make_run("a", seed=1), make_run("b", seed=2)) == {"gtpo": ["a", "b"]}


def test_methods_are_told_apart_by_their_names():
    runs = [make_run("a", seed=1), make_run("b", discount=0.0), make_run("c", seed=2)]
    runs[1].settings["train"]["method"] = ["grpo"]
    assert grouped(*runs) == {"gtpo": ["a", "c"], "grpo": ["b"]}


def test_settings_of_one_method_are_told_apart_by_what_differs():
    runs = [make_run("a"), make_run("b", discount=0.5), make_run("c", seed=5, discount=0.5)]
    assert grouped(*runs) == {"gtpo, discount 0.9": ["a"], "gtpo, discount 0.5": ["b", "c"]}


def test_a_band_has_the_steps_of_all_its_runs():
    runs = [make_run(shift=0.0), make_run(shift=0.2, steps=3)]
    found = bands.band(runs, "rollout/success")
    assert found.steps == [1, 2, 3]
    assert [min(v) for v in found.values] == pytest.approx([0.1, 0.2, 0.3])
    assert found.means == pytest.approx([0.2, 0.3, 0.4])
    assert bands.band(runs, "no/such") is None


def test_held_out_success_may_have_another_name_in_each_run():
    runs = [make_run(), make_run(metric="eval/sampled_avg@4")]
    assert bands.band(runs, None).steps == [2, 4]


def test_comparison_is_drawn_and_told(tmp_path):
    runs = [make_run("a", seed=1), make_run("b", seed=2, shift=0.2), make_run("c", discount=0.5)]
    groups = bands.group_runs(runs)
    bands.plot_comparison(groups, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(bands.comparison_table(groups))
    # Of 0.4 and 0.6 at step 4, and half of that on held-out problems.
    [line] = [line for line in console.export_text().split("\n") if "discount 0.9" in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == [
        *("gtpo, discount 0.9", "2", "1, 2"),
        *("0.250 ± 0.071 (step 4)", "0.500 ± 0.141 (step 4)"),
    ]


def test_runs_without_a_common_step_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="no step that the runs have in common in gtpo"):
        bands.plot_comparison({"gtpo": [make_run(steps=0)]}, tmp_path / "c.png")
