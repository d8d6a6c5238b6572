"""`launch.report`: what it finds in the folders of runs, chooses, writes and refuses."""

import base64
import dataclasses
import gzip
import itertools
import json
import re
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest
from PIL import Image

from configs.presets import PRESETS
from gtpo_jax.results import records
from gtpo_jax.results.evaluation import outcome_of
from gtpo_jax.rollout import Request
from launch import cli, report
from launch.run import evaluation_files, run_folder
from tests.report import made


def make_run(folder, *, seed=0, steps=(2, 4), evaluation=True):
    """The folder that a run leaves."""
    for step in steps:
        path = records.step_path(folder / "train" / "trajectories", step)
        records.write_records(path, made.make_step(step))
    if evaluation:
        path = folder / "evaluation" / "train" / "sampled" / "trajectories.jsonl"
        records.write_records(path, made.make_step(20, groups=2, samples=1))
    (folder / "train").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in made.make_metrics(20)]
    (folder / "train" / "metrics.jsonl").write_text("".join(lines))
    train = {"steps": 20, "prompts": 4, "group_size": 3, "method": ["gtpo"]}
    cli.write_json(folder / "train" / "config.json", {"seed": seed, "train": train})
    return folder


def write_evaluation(run, name, checkpoint, *, right, problems=3, samples=2):
    """Writes the files of an evaluation whose samples are all right or all wrong."""
    settings = {"checkpoint": checkpoint}
    folder = evaluation_files.Results(run / "evaluation" / name, settings, made.TOKENIZER)
    asked = {
        mode: [
            Request(problem=made.make_problem(number), group=number, sample=sample)
            for number in range(problems)
            for sample in range(samples if mode == "sampled" else 1)
        ]
        for mode in ("sampled", "greedy")
    }
    done = {}
    for mode, requests in asked.items():
        done[mode] = [
            made.make_trajectory(r.problem, r.group, r.sample, right=right) for r in requests
        ]
        folder.add(mode, int(checkpoint.split("/")[-1]), done[mode])
        folder.join_parts(mode)
    folder.write_problems(asked)
    return done


def index_of(path):
    """The index of a page."""
    text = path.read_text(encoding="utf-8")
    [packed] = re.findall(r'<script type="[^"]*" id="index">([^<]*)</script>', text)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_page_of_a_run(tmp_path, capsys):
    run = make_run(tmp_path / "mine")
    report.run([str(run)])
    index = index_of(run / "report.html")
    assert (index["title"], index["note"]) == ("mine", "")
    assert index["subtitle"] == "gtpo · seed 0 · 20 steps of 4 groups with 12 trajectories"
    assert index["sources"] == ["train", "evaluation/train/sampled"]
    assert len(index["trajectories"]["sample"]) == 26
    assert [panel["title"] for panel in index["panels"]][:2] == ["success", "credit/reward"]
    assert "26 of 26 trajectories" in capsys.readouterr().out


def test_page_of_several_runs_names_them(tmp_path):
    runs = [make_run(tmp_path / name, evaluation=False) for name in ("a", "b")]
    report.run([*map(str, runs), "--out", str(tmp_path / "new" / "both.html")])
    index = index_of(tmp_path / "new" / "both.html")
    assert index["title"] == "a · b" and index["figures"] == []
    assert index["sources"] == ["a: train", "b: train"]


def test_evaluations_are_read_as_they_were_written(tmp_path):
    done = write_evaluation(tmp_path, "train-4", "train/checkpoints/4", right=True)
    found = evaluation_files.read_problems(tmp_path / "evaluation" / "train-4")
    assert found.outcomes == {m: list(map(outcome_of, made)) for m, made in done.items()}
    assert found.texts == {f"sum-{n}": (f"What is {n} + 2?", str(n + 2)) for n in range(3)}


def test_page_of_a_run_has_its_evaluations_in_the_order_of_policies(tmp_path):
    run = make_run(tmp_path / "mine", evaluation=False)
    for name, checkpoint, right in (
        ("again", "train/checkpoints/9", True),
        ("train-4", "train/checkpoints/4", True),
        ("train-12", "/elsewhere/runs/other/train/checkpoints/12", False),
        ("sft-20", "sft/checkpoints/20", False),
        ("zero/import-0", "import/checkpoints/0", False),
    ):
        write_evaluation(run, name, checkpoint, right=right)
    # One that was stopped, and one of a run without any.
    (run / "evaluation" / "stopped" / "sampled").mkdir(parents=True)
    report.run([str(run), "--most", "10"])
    index = index_of(run / "report.html")
    [held_out] = index["evaluations"]["runs"]
    names = ["zero/import-0", "sft-20", "train-4", "again", "train-12"]
    assert [(bar["name"], bar["mode"]) for bar in held_out["bars"]] == [
        (name, mode) for name in names for mode in ("sampled", "greedy")
    ]
    # Of all samples, though the page holds few.
    assert len(index["trajectories"]["sample"]) <= 10
    assert {bar["samples"] for bar in held_out["bars"] if bar["mode"] == "sampled"} == {6}
    compared = {tuple(each["names"]): each["gain"] for each in held_out["comparisons"]}
    gains = dict(zip(names[1:], (0, 1, 1, 0), strict=True))
    assert compared == {("zero/import-0", name): gain for name, gain in gains.items()}


def test_page_of_several_runs_has_the_evaluations_of_each(tmp_path):
    runs = [make_run(tmp_path / name, evaluation=False) for name in ("a", "b", "c")]
    write_evaluation(runs[0], "train-4", "train/checkpoints/4", right=True)
    write_evaluation(runs[2], "train-4", "train/checkpoints/4", right=False)
    report.run([*map(str, runs), "--out", str(tmp_path / "all.html")])
    held_out = index_of(tmp_path / "all.html")["evaluations"]
    assert held_out["several"] and [each["run"] for each in held_out["runs"]] == ["a", "c"]
    assert [each["bars"][0]["shares"][:2] for each in held_out["runs"]] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("problems.jsonl", '{"mode": "sampled"}\n', r"problems.jsonl, line 1: expected a problem"),
        ("problems.jsonl", "[", r"problems.jsonl, line 1: expected a problem"),
        ("settings.json", "{}", r"settings.json: expected the settings.*KeyError: 'checkpoint'"),
        ("settings.json", '{"checkpoint": "policy/4"}', r"settings.json: expected the settings"),
    ],
)
def test_a_broken_evaluation_is_named(tmp_path, file, text, message):
    run = make_run(tmp_path, evaluation=False)
    write_evaluation(run, "train-4", "train/checkpoints/4", right=True)
    (run / "evaluation" / "train-4" / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        report.run([str(run)])


def test_page_of_some_steps(tmp_path):
    run = make_run(tmp_path)
    report.run([str(run), "--steps", "4"])
    assert set(index_of(run / "report.html")["groups"]["step"]) == {4}


def test_page_with_fewer_trajectories_says_so(tmp_path):
    run = make_run(tmp_path, steps=(2, 4, 6), evaluation=False)
    report.run([str(run), "--most", "10"])
    index = index_of(run / "report.html")
    # Groups of three: three of them, the first and the last among them.
    groups = index["groups"]
    assert list(zip(groups["step"], groups["group"], strict=True)) == [(2, 0), (4, 2), (6, 3)]
    assert groups["count"] == [3, 3, 3]
    assert index["note"].startswith("9 of 36 trajectories: whole groups, evenly chosen.")


@hypothesis.given(
    st.dictionaries(st.tuples(st.integers(0, 99)), st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 100),
)
def test_chosen_groups_are_whole_and_few_enough(sizes, most):
    chosen = run_folder.choose_groups(sizes, most)
    total = sum(sizes[group] for group in chosen)
    assert chosen <= set(sizes)
    assert total <= most or len(chosen) == 1
    if sum(sizes.values()) <= most:
        assert chosen == set(sizes)


def test_equal_groups_fill_the_page():
    sizes = {(i,): 8 for i in range(1000)}
    chosen = sorted(i for (i,) in run_folder.choose_groups(sizes, 100))
    assert len(chosen) == 12 and (chosen[0], chosen[-1]) == (0, 999)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1


def test_comparison_of_a_folder_of_runs(tmp_path, capsys):
    for seed in (1, 2):
        make_run(tmp_path / f"gtpo-{seed}", seed=seed, steps=(), evaluation=False)
    (tmp_path / "cold-start" / "sft").mkdir(parents=True)
    (tmp_path / "cold-start" / "sft" / "metrics.jsonl").write_text('{"step": 1}\n')
    report.run(["--compare", str(tmp_path)])
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "1.000 ± 0.000" in told and "1, 2" in told


def test_settings_are_those_that_training_writes():
    # What a page and a comparison read of a config that the schema makes.
    settings = dataclasses.asdict(PRESETS["tiny"])
    train = settings["train"]
    assert {"prompts", "group_size", "steps"} <= set(train) and "seed" in settings
    assert train["method"] == ("gtpo",)


def test_names_of_runs_differ(tmp_path):
    runs = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert run_folder.names_of(runs) == ["a/run", "b/run"]
    assert run_folder.names_of(runs[:1]) == ["run"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no run is named; give its folder"),
        (["{run}/none"], "none is not a folder; expected the folder of a run"),
        (["{run}/train/trajectories"], "no trajectories in .*; training keeps them in"),
        (["--compare", "{run}/evaluation"], "no metrics of training in .*launch.train"),
        (["{run}", "{run}/../mine"], "mine is named twice"),
        (["{run}", "--steps", "3"], "no trajectory of step 3; there are some of 2, 4, 20"),
        (["{run}", "--most", "0"], "most must be at least 1, got 0"),
        (["{run}", "--moist", "9"], "Unrecognized options: --moist"),
        (["{run}", "--compare", "--steps", "3"], "are for the page; leave out --compare"),
    ],
)
def test_bad_input_is_named(tmp_path, options, message):
    run = make_run(tmp_path / "mine")
    with pytest.raises(ValueError, match=message):
        report.run([option.format(run=run) for option in options])
    assert not (run / "report.html").exists()


def test_a_broken_file_is_named(tmp_path):
    run = make_run(tmp_path)
    (run / "evaluation" / "train" / "sampled" / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"trajectories.jsonl, line 1: expected a record"):
        report.run([str(run)])


def test_without_a_browser_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="--screenshot needs a browser on PATH, one of chromium"):
        report.run([str(make_run(tmp_path)), "--screenshot", str(tmp_path / "page.png")])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, report.BROWSERS)), reason="needs chromium on PATH")
def test_picture_of_the_page(tmp_path):
    picture = tmp_path / "docs" / "page.png"
    report.run([str(make_run(tmp_path / "mine")), "--screenshot", str(picture)])
    with Image.open(picture) as image:
        assert image.size == report.PICTURE
        # The page was drawn: an empty one has a color or two.
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert picture.stat().st_size < 250_000
