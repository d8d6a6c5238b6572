"""Evaluation of a checkpoint: its files, and resuming where it stopped."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import signal
import time

import jax
import jax.numpy as jnp
import pytest

from gtpo_jax.learner.checkpoint import CheckpointStore, saved_steps
from gtpo_jax.results import records
from gtpo_jax.results.evaluation import Outcome, summarize
from gtpo_jax.rollout import Request
from launch import evaluate, sft
from launch.run import evaluation_files
from launch.run.network import Network
from launch.run.session import Session, make_source
from tests.launch import small

pytestmark = pytest.mark.slow

PROBLEMS, SAMPLES = 20, 3
OPTIONS = ("--phase", "sft", "--evaluation.problems", PROBLEMS, "--evaluation.samples", SAMPLES)
OPTIONS += ("--show", 0)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run with two checkpoints of random parameters."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    config = small.parse(sft.SftArguments).config
    with (
        Session(config, folder) as session,
        CheckpointStore(folder / "sft" / "checkpoints") as store,
    ):
        session.save_tokenizer()
        for step in (4, 6):
            store.save_params(step, Network(config.model, session.mesh, seed=step).random())
    return folder


def run(run_dir, *options):
    """Evaluates with the options; returns the folder of the last results."""
    evaluate.run([*small.OPTIONS, "--run-dir", str(run_dir), *map(str, (*OPTIONS, *options))])
    return max((run_dir / "evaluation").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def whole(run_dir):
    """The results of an uninterrupted evaluation."""
    return run(run_dir, "--name", "whole", "--json", run_dir / "figures.json")


def lines(folder):
    return [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]


def same_results(first, second):
    """Problems and figures; the parts of trajectories differ, and so do times."""
    return all(
        (first / name).read_bytes() == (second / name).read_bytes()
        for name in ("problems.jsonl", "summary.json")
    )


def trajectories(folder):
    return [
        record
        for path in sorted(folder.glob("*/*.jsonl.gz"))
        for record in records.read_records(path)
    ]


def test_every_problem_has_a_line_with_its_samples(whole):
    told = lines(whole)
    assert [line["mode"] for line in told] == ["sampled"] * PROBLEMS + ["greedy"] * PROBLEMS
    assert len({line["problem"] for line in told}) == PROBLEMS
    for line in told:
        numbers = [sample["sample"] for sample in line["samples"]]
        assert numbers == list(range(SAMPLES if line["mode"] == "sampled" else 1))
        assert line["right"] == sum(sample["success"] for sample in line["samples"])


def test_summary_is_that_of_the_lines(run_dir, whole):
    summary = json.loads((whole / "summary.json").read_text())
    for mode in ("sampled", "greedy"):
        outcomes = [
            Outcome(problem=line["problem"], family=line["family"], **sample)
            for line in lines(whole)
            if line["mode"] == mode
            for sample in line["samples"]
        ]
        assert summary[mode] == json.loads(json.dumps(summarize(outcomes).record()))
    assert summary["sampled"]["scores"].keys() >= {"avg@3", "pass@1", "pass@2", "pass@3", "maj@3"}
    assert summary["checkpoint"] == "sft/checkpoints/6" and summary["repeated"] == 0
    written = json.loads((run_dir / "figures.json").read_text())
    assert written == {mode: summary[mode] for mode in ("sampled", "greedy")}


def test_trajectories_are_kept_in_one_file_a_mode(whole):
    files = sorted(whole.glob("*/*"))
    assert files == [whole / mode / "trajectories.jsonl.gz" for mode in ("greedy", "sampled")]
    kept = trajectories(whole)
    assert len(kept) == PROBLEMS * (SAMPLES + 1)
    assert {record["mode"] for record in kept} == {"sampled", "greedy"}
    assert {record["step"] for record in kept} == {6}
    for record in kept:
        outcome = record["outcome"]
        assert outcome["tokens"] == sum(len(turn["pieces"]) for turn in record["turns"])
        assert outcome["success"] == record["success"]


def rolled_out(monkeypatch):
    """Collects the requests of every rollout from this point on."""
    asked = []
    plain = evaluate.Evaluator.run

    def watched(self, params, mode, requests, **options):
        asked.extend((mode, r.problem.id, r.sample) for r in requests)
        return plain(self, params, mode, requests, **options)

    monkeypatch.setattr(evaluate.Evaluator, "run", watched)
    return asked


class Stopped(Exception):
    pass


def test_evaluation_goes_on_where_it_stopped(run_dir, whole, monkeypatch):
    add = evaluation_files.Results.add
    count = itertools.count()

    def stopping(self, mode, step, part):
        if next(count) == 1:
            raise Stopped
        add(self, mode, step, part)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(evaluation_files.Results, "add", stopping)
        run(run_dir, "--name", "stopped")
    folder = run_dir / "evaluation" / "stopped"
    saved = {(r["mode"], r["problem"]["id"], r["sample"]) for r in trajectories(folder)}
    assert saved and not (folder / "summary.json").exists()
    asked = rolled_out(monkeypatch)
    run(run_dir, "--name", "stopped")
    assert not saved & set(asked)
    assert len(saved) + len(asked) == PROBLEMS * (SAMPLES + 1)
    assert same_results(folder, whole)


def test_finished_evaluation_is_read(run_dir, whole, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    asked = rolled_out(monkeypatch)
    run(run_dir, "--name", "whole")
    assert asked == []
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    shown = capsys.readouterr().out
    assert "sampled: 60 of 60 trajectories exist already" in shown
    assert "avg@k" in shown and "pass@3" in shown


def test_more_samples_of_more_problems_need_only_those(run_dir, whole, monkeypatch):
    run(run_dir, "--name", "grown", "--evaluation.samples", 1, "--evaluation.problems", 5)
    asked = rolled_out(monkeypatch)
    grown = run(run_dir, "--name", "grown")
    assert len(asked) == PROBLEMS * (SAMPLES + 1) - 2 * 5
    assert same_results(grown, whole)


def test_other_settings_are_an_error_that_names_them(run_dir, whole, monkeypatch):
    asked = rolled_out(monkeypatch)
    for options, named in (
        (("--evaluation.temperature", 0.7, "--seed", 5), r"\(evaluation\.temperature, seed\)"),
        (("--checkpoint", 4), r"\(checkpoint, parameters\)"),
    ):
        with pytest.raises(ValueError, match=rf"other settings {named}.* another --name"):
            run(run_dir, "--name", "whole", *options)
    assert asked == []


def test_another_problem_of_the_same_name_is_an_error(whole, run_dir):
    settings = json.loads((whole / "settings.json").read_text())
    with Session(small.parse(sft.SftArguments).config, run_dir) as session:
        found = evaluation_files.Results(whole, settings, session.dialogue.tokenizer)
        problem = dataclasses.replace(session.source.held_out(1)[0], answer="another")
    with pytest.raises(ValueError, match="results of another problem"):
        found.missing("greedy", [Request(problem=problem, group=0, sample=0)])


def test_damaged_part_is_an_error_that_names_it(whole, run_dir, tmp_path):
    part = tmp_path / "sampled" / "part-00001.jsonl.gz"
    part.parent.mkdir()
    part.write_bytes(gzip.compress(b"{}")[:-3])
    with pytest.raises(ValueError, match=r"part-00001\.jsonl\.gz"):
        evaluation_files.Results(tmp_path, {}, None)


def test_parts_that_were_joined_when_it_was_stopped_are_joined_once(whole, tmp_path):
    kept = list(records.read_records(whole / "sampled" / "trajectories.jsonl.gz"))
    paths = [tmp_path / "sampled" / f"part-{number:05d}.jsonl.gz" for number in (1, 2, 3)]
    for path, part in zip(paths, (kept[:9], kept[9:21], kept[21:]), strict=True):
        records.write_records(path, part)
    first = paths[0].read_bytes()
    evaluation_files.Results(tmp_path, {}, None).join_parts("sampled")
    paths[0].write_bytes(first)
    again = evaluation_files.Results(tmp_path, {}, None)
    again.join_parts("sampled")
    [joined] = (tmp_path / "sampled").iterdir()
    assert list(records.read_records(joined)) == kept and len(again.outcomes) == len(kept)


def test_checkpoint_is_chosen_by_step_or_path(run_dir, whole):
    assert set(saved_steps(run_dir / "sft" / "checkpoints")) == {6, 4}
    few = ("--evaluation.problems", 2, "--evaluation.samples", 1)
    by_step = run(run_dir, "--checkpoint", 4, *few)
    assert by_step.name == "sft-4"
    path = run_dir / "sft" / "checkpoints" / "4"
    by_path = run(run_dir, "--checkpoint", path, "--phase", "train", "--name", "path", *few)
    assert same_results(by_path, by_step)
    digests = [
        json.loads((folder / "settings.json").read_text())["parameters"]
        for folder in (by_step, by_path, whole)
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "5"), r"no checkpoint 5 in .*; there are: 6, 4"),
        (("--checkpoint", "runs/mine/sft"), r"must be a step, or a path like RUN/train"),
        (("--phase", "train"), r"no checkpoint in .*train.*; give --phase sft, which has one"),
        (("--evaluation.samples", "0"), r"evaluation\.samples must be at least 1, got 0"),
        (("--evaluation.temperature", "0"), r"evaluation\.temperature must be above 0"),
    ],
)
def test_bad_input_is_an_error_before_any_work(run_dir, options, message, monkeypatch):
    asked = rolled_out(monkeypatch)
    with pytest.raises(ValueError, match=message):
        run(run_dir, *options)
    assert asked == []


def test_parts_are_whole_problems_of_a_few_fillings():
    problems = small_problems(10)
    requests = [Request(problem=p, group=g, sample=s) for g, p in problems for s in range(3)]
    cut = list(evaluation_files.parts(requests, slots=2))
    assert [len(part) for part in cut] == [9, 9, 9, 3]
    assert [request for part in cut for request in part] == requests
    assert list(evaluation_files.parts([], slots=2)) == []


def small_problems(count):
    config = small.parse(sft.SftArguments).config
    return list(enumerate(make_source(config).held_out(count)))


@pytest.mark.parametrize(
    ("dtype", "other"), [(jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)]
)
def test_digest_sees_every_entry_and_its_place(dtype, other):
    params = {"a": jnp.arange(12, dtype=dtype).reshape(3, 4), "b": jnp.ones(2, dtype)}
    changed = [
        {**params, "a": params["a"].at[2, 3].set(0.5)},
        {**params, "a": params["a"][::-1]},
        {**params, "a": params["a"].reshape(4, 3)},
        {"a": params["a"], "c": params["b"]},
        jax.tree.map(lambda x: x.astype(other), params),
    ]
    digests = {evaluation_files.digest(p) for p in (params, *changed)}
    assert len(digests) == 1 + len(changed)
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "y"))
    spread = {**params, "a": jax.device_put(params["a"], spec)}
    assert evaluation_files.digest(spread) == evaluation_files.digest(
        jax.tree.map(jnp.copy, params)
    )
    assert evaluation_files.digest(spread) == evaluation_files.digest(params)


def test_killed_evaluation_goes_on_and_is_the_one_that_was_not(run_dir, whole):
    folder = run_dir / "evaluation" / "killed"
    options = ("--run-dir", run_dir, *OPTIONS, "--name", "killed")
    process = small.start("evaluate", *options)
    while not list(folder.glob("sampled/part-*.gz")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    assert same_results(run(run_dir, "--name", "killed"), whole)
