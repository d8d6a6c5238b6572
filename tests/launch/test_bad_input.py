"""Bad input is one line on stderr that names the way out, before any work is done."""

from __future__ import annotations

import pathlib
import sys

import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit, facts
from launch import cli, compare, demo, evaluate, plan, sft, train
from tests.launch import small

LAUNCHERS = {"sft": sft, "train": train, "evaluate": evaluate, "demo": demo, "compare": compare}
LAUNCHERS |= {"plan": plan}


def complaint(launcher: str, capsys, monkeypatch, *options: object) -> str:
    """The message of a launcher to bad options."""
    monkeypatch.setattr(sys, "argv", [launcher, *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        cli.main(LAUNCHERS[launcher].run)
    assert stop.value.code == cli.EXIT_BAD_INPUT
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    return message


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_unknown_preset_names_the_presets(launcher, capsys, monkeypatch):
    assert "tiny" in complaint(launcher, capsys, monkeypatch, "huge")


def test_unknown_option_suggests_the_right_one(capsys, monkeypatch):
    message = complaint("train", capsys, monkeypatch, "tiny", "--train.step", "3")
    assert "--train.step" in message and "--train.steps" in message


def test_value_of_wrong_kind_names_the_option(capsys, monkeypatch):
    assert "--train.steps" in complaint("train", capsys, monkeypatch, "--train.steps", "many")


def test_impossible_limits_name_the_field(capsys, monkeypatch):
    message = complaint(
        "sft", capsys, monkeypatch, "--rollout.context", "40", "--rollout.prompt-tokens", "48"
    )
    assert "context" in message and "prompt_tokens" in message


def test_unknown_family_names_the_families(tmp_path, capsys, monkeypatch):
    options = ("--task.families", "poetry", "--run-dir", tmp_path)
    assert "arithmetic" in complaint("sft", capsys, monkeypatch, *options)


def test_broken_problem_file_names_the_line(tmp_path, capsys, monkeypatch):
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"question": "1+1?", "answer": "2"}\n{"question": "2+2?"}\n')
    options = ("--task.train-file", problems, "--task.eval-file", problems)
    message = complaint("sft", capsys, monkeypatch, *options, "--run-dir", tmp_path / "run")
    assert f"{problems}, line 2" in message and "answer" in message


def test_missing_problem_file_names_the_path(tmp_path, capsys, monkeypatch):
    missing = tmp_path / "none.jsonl"
    options = ("--task.train-file", missing, "--task.eval-file", missing)
    assert str(missing) in complaint("sft", capsys, monkeypatch, *options, "--run-dir", tmp_path)


def test_training_without_cold_start_names_the_launcher(tmp_path, capsys, monkeypatch):
    options = (*small.OPTIONS, "--run-dir", tmp_path / "run")
    assert "launch.sft" in complaint("train", capsys, monkeypatch, *options)


@pytest.mark.parametrize("launcher", ["sft", "demo"])
def test_resume_without_checkpoint_is_an_error(launcher, tmp_path, capsys, monkeypatch):
    options = (*small.OPTIONS, "--resume", "--run-dir", tmp_path / "run")
    message = complaint(launcher, capsys, monkeypatch, *options)
    assert "checkpoint" in message and "--resume" in message


def test_rows_that_devices_cannot_share_name_the_multiple(tmp_path, capsys, monkeypatch):
    options = (*small.OPTIONS, "--train.rows", "10", "--run-dir", tmp_path / "run")
    message = complaint("sft", capsys, monkeypatch, *options)
    assert "train.rows is 10" in message and "multiple of 8" in message


def test_context_too_small_for_a_prompt_names_the_problem(tmp_path, capsys, monkeypatch):
    options = (*small.OPTIONS, "--rollout.prompt-tokens", "10", "--run-dir", tmp_path / "run")
    message = complaint("sft", capsys, monkeypatch, *options)
    assert "prompt_tokens" in message


def test_option_that_the_method_does_not_have_is_an_error(tmp_path, capsys, monkeypatch):
    options = ("--train.method", "grpo", "discount=0.5")
    message = complaint("train", capsys, monkeypatch, *options, "--run-dir", tmp_path / "run")
    assert "grpo has no option discount; it has divide_by_std, ddof, eps" in message


def asking(*needs: facts.Fact) -> methods.Method:
    """A method whose credit reads facts."""
    link = credit.stateless(lambda values, _: values, needs=needs)
    return methods.method.add_link(methods.grpo(), link)


def of_nobody() -> methods.Method:
    """A method with a fact that no environment here computes."""
    return asking(facts.Fact("hits", None, "[M] float32, gold entities", "an environment has to"))


def of_records() -> methods.Method:
    """A method with a fact that is read from the records of problems."""
    gather = facts.of_trajectories(lambda t: t.problem.info["goal"])
    return asking(facts.Fact("goals", gather, "[M] float32, goal", fields=("goal",)))


@pytest.mark.parametrize("launcher", ["sft", "train", "compare", "plan"])
@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("of_nobody", ("'hits' ([M] float32, gold entities)", "an environment has to")),
        ("of_records", ("'goals' ([M] float32, goal)", "lacks goal")),
    ],
)
def test_facts_that_a_run_lacks_are_named_before_any_work(
    launcher, method, parts, tmp_path, capsys, monkeypatch
):
    name = "--methods" if launcher == "compare" else "--train.method"
    options = [*small.OPTIONS, name, f"{__name__}:{method}"]
    if launcher != "plan":
        options += ["--run-dir", tmp_path / "run"]
    message = complaint(launcher, capsys, monkeypatch, *options)
    assert all(part in message for part in parts), message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "spelling"),
    [
        (("--train.algorithm.discount", "0.5"), "--train.method gtpo discount=…"),
        (("--train.algorithm.clip_low=0.5",), "--train.method gtpo + clip low=…"),
        (("--train.sampling-rounds", "4"), "--train.method gtpo + dynamic_sampling rounds=…"),
    ],
)
def test_option_that_is_a_part_of_the_method_names_its_spelling(
    option, spelling, capsys, monkeypatch
):
    message = complaint("train", capsys, monkeypatch, *option)
    assert "there is no option --train." in message and spelling in message


def test_tokenizer_that_does_not_exist_names_the_trainer(tmp_path, capsys, monkeypatch):
    options = ("--tokenizer", tmp_path / "none.model", "--run-dir", tmp_path / "run")
    assert "train_tokenizer" in complaint("sft", capsys, monkeypatch, *options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run with a finished cold start."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    sft.run([*small.OPTIONS, "--run-dir", str(run_dir)])
    return run_dir


@pytest.mark.slow
def test_finished_phase_is_not_overwritten(finished, capsys, monkeypatch):
    run_dir = finished
    before = (run_dir / "sft" / "metrics.jsonl").read_text()
    message = complaint("sft", capsys, monkeypatch, *small.OPTIONS, "--run-dir", run_dir)
    assert "--resume" in message and "--run-dir" in message
    assert (run_dir / "sft" / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_resume_with_other_settings_names_them(finished, capsys, monkeypatch):
    changed = ("--resume", "--run-dir", finished, "--sft.rows", "16", "--seed", "2")
    message = complaint("sft", capsys, monkeypatch, *changed)
    assert "seed 0 → 2: it decides problems, samples and batches" in message
    assert "sft.rows 8 → 16: it decides what is imitated and how" in message


def test_bad_input_leaves_no_run_behind(tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"
    complaint("sft", capsys, monkeypatch, "--task.families", "poetry", "--run-dir", run_dir)
    assert not pathlib.Path(run_dir).exists()
