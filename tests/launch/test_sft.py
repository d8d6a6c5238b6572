"""The cold start from files: of a fresh model, of an imported one, and of its own successes."""

from __future__ import annotations

import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import pytest

from gtpo_jax import learner
from gtpo_jax.learner.checkpoint import saved_steps
from gtpo_jax.types import Verdict
from launch import cli, convert, rollout, sft
from launch.run import signals
from launch.run.session import Session
from launch.train import TrainArguments
from models.hf import weights as hf_weights
from tests.launch import small
from tests.launch.test_imported import OPTIONS as CHAT
from tests.launch.test_imported import write_checkpoint
from tests.tiny import make_params

QUESTION = "What is 12*34?"
TINY = [*small.OPTIONS, "--rollout.slots", "8", "--rollout.turn-tokens", "40"]
CHAT = [
    *("chat", *CHAT, "--sft.rows", "8", "--sft.row-tokens", "256", "--sft.steps", "2"),
    *("--sft.optimizer.learning-rate", "1e-3", "--sft.logprob-chunk", "64"),
    *("--sft.demonstrations", "12", "--task.families", "arithmetic", "--tool.preload"),
]


def record(code="print(12*34)", output="408", answer="408", final="It is <answer>408</answer>."):
    function = {"name": "python", "arguments": {"code": code}}
    return {
        "answer": answer,
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": output},
            {"role": "assistant", "content": final},
        ],
    }


def write(path, *records):
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def open_session(argv, run_dir):
    return Session(cli.parse(sft.SftArguments, argv, program="tests").config, run_dir)


# Enough for one conversation to be known by heart.
BY_HEART = [
    *(*TINY, "--sft.steps", "60", "--sft.checkpoint-every", "30"),
    *("--sft.optimizer.learning-rate", "0.03"),
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run that has learned one conversation by heart, and its file."""
    folder = tmp_path_factory.mktemp("taught")
    shown = write(folder / "shown.jsonl", record())
    sft.run([*BY_HEART, "--sft.files", str(shown), "--run-dir", str(folder / "run")])
    return folder


@pytest.mark.slow
def test_model_learns_from_its_own_successes(taught, tmp_path):
    run_dir, again, kept = taught / "run", tmp_path / "again", tmp_path / "kept.jsonl"
    problem = {"id": "p", "question": QUESTION, "answer": "408"}
    task = write(tmp_path / "task.jsonl", problem)
    held_out = write(tmp_path / "other.jsonl", {"question": "What is 1+1?", "answer": "2"})
    rollout.run(
        [
            *(*BY_HEART, "--run-dir", str(run_dir), "--temperature", "0.5"),
            *("--task.train-file", str(task), "--task.eval-file", str(held_out)),
            *("--keep-successes", str(kept), "--problems", "3", "--samples", "8"),
            *("--json", str(tmp_path / "figures.json")),
        ]
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["problems"] == figures["solved"] == figures["records"] == 1
    [found] = [json.loads(line) for line in kept.read_text().splitlines()]
    assert (found["id"], found["problem"], found["answer"]) == ("p", QUESTION, "408")
    assert found["messages"][1]["content"] == "<code>print(12*34)</code>"

    # Token by token it is the conversation that the policy had learned, so it learns the same.
    sft.run([*BY_HEART, "--sft.files", str(kept), "--run-dir", str(again)])
    digests = [folder / "sft" / "demonstrations.json" for folder in (run_dir, again)]
    assert digests[0].read_text() == digests[1].read_text()
    assert small.records(again, "sft") == small.records(run_dir, "sft")
    first, *_, last = small.records(again, "sft")
    assert last["sft/loss"] < 0.5 < first["sft/loss"]


@pytest.mark.slow
def test_resumed_cold_start_from_files_is_the_one_that_never_stopped(taught, tmp_path):
    run_dir, whole = tmp_path / "run", taught / "run"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "sft" / "checkpoints" / "60")
    options = [*BY_HEART, "--sft.files", str(taught / "shown.jsonl"), "--run-dir", str(run_dir)]
    sft.run([*options, "--resume"])
    assert small.records(run_dir, "sft") == small.records(whole, "sft")
    with open_session(BY_HEART, run_dir) as session:
        states = [session.load_params(folder, "sft") for folder in (run_dir, whole)]
    chex.assert_trees_all_equal(*map(jax.device_get, states))

    digest = run_dir / "sft" / "demonstrations.json"
    digest.write_text(digest.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ValueError, match=r"json was written for other demonstrations"):
        sft.run([*options, "--resume"])


@pytest.mark.slow
def test_an_update_is_done_before_the_next_begins_so_signals_are_heard(monkeypatch, tmp_path):
    done, call = [], learner.CompiledUpdate.__call__

    def watched(update, state, batch):
        done.append(not done or figures[-1]["loss"].is_ready())
        state, found = call(update, state, batch)
        figures.append(found)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return state, found

    figures = []
    monkeypatch.setattr(learner.CompiledUpdate, "__call__", watched)
    with pytest.raises(signals.Preempted, match="saved step 3"):
        sft.run([*TINY, "--run-dir", str(tmp_path / "run")])
    assert done == [True] * 3
    assert max(saved_steps(tmp_path / "run" / "sft" / "checkpoints")) == 3


def test_broken_file_leaves_no_run_behind(tmp_path):
    file = write(tmp_path / "x.jsonl", record(), {"messages": []}, record(final="408"))
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match=r"2 of 3 .*line 2: .*x\.jsonl, line 3: turn 2: neither"):
        sft.run([*TINY, "--sft.files", str(file), "--run-dir", str(run_dir)])
    assert not run_dir.exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    long = record(final="So " + "and so on " * 20 + "<answer>408</answer>")
    write(folder / "mixed.jsonl", record(), long, record(answer=""))
    write(folder / "long.jsonl", long)
    write(folder / "cut.jsonl", record(output="408 " * 50))
    return folder


def read(tmp_path, *options):
    with open_session([*TINY, *map(str, options)], tmp_path / "run") as session:
        return sft.read_demonstrations(session)


def test_demonstration_that_does_not_fit_is_named_or_left_out(files, tmp_path, capsys):
    mixed = ("--sft.files", files / "mixed.jsonl")
    match = r"mixed\.jsonl, line 2 has \d+ tokens, sft\.row_tokens is 128, and 1 of 3"
    with pytest.raises(ValueError, match=match):
        read(tmp_path, *mixed)
    kept = read(tmp_path, *mixed, "--sft.too-long", "drop")
    assert [t.verdict for t in kept] == [Verdict.RIGHT, Verdict.UNVERIFIABLE]
    printed = capsys.readouterr().out
    assert "1 of 3 demonstrations are left out: they have more than 128 tokens" in printed
    assert "2 demonstrations: 100% right of the 1 that can be judged, 0% badly" in printed
    with pytest.raises(ValueError, match="1 of 1 do not fit"):
        read(tmp_path, "--sft.files", files / "long.jsonl", "--sft.too-long", "drop")


def test_outputs_that_are_cut_are_counted(files, tmp_path, capsys):
    read(tmp_path, "--sft.files", files / "cut.jsonl", files / "cut.jsonl")
    assert "outputs of 2 demonstrations are cut to 32 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--sft.violations"], ["--sft.system-messages", "drop"]])
def test_option_for_files_needs_files(option):
    with pytest.raises(ValueError, match=r"is for demonstrations in files; give sft\.files"):
        cli.parse(sft.SftArguments, option, program="tests")


def test_cold_start_of_a_pretrained_model_is_gentle():
    for preset in ("chat", "qwen2.5-7b-gtpo"):
        config = cli.parse(sft.SftArguments, [preset], program="tests").config.sft
        assert config.optimizer.kind == "adam" and config.optimizer.learning_rate == 1e-5
        assert config.logprob_chunk is not None


def imported(tmp_path, *options):
    """The run of an imported model with a cold start from a file."""
    write_checkpoint(tmp_path / "there", "qwen2.5")
    run_dir = tmp_path / "run"
    convert.run(["import", str(tmp_path / "there"), "--run-dir", str(run_dir)])
    file = write(tmp_path / "x.jsonl", *[record(final="It is \\boxed{408}.")] * 3)
    sft.run([*CHAT, "--sft.files", str(file), "--run-dir", str(run_dir), *options])
    return run_dir


@pytest.mark.long
def test_imported_model_is_taught_trained_on_and_exported(tmp_path):
    run_dir = imported(tmp_path)
    assert not (run_dir / "tokenizer.model").exists()
    with open_session(CHAT, run_dir) as session:
        begun = jax.device_get(sft.first_params(session))
        taught = jax.device_get(session.load_params(run_dir, "sft"))
        chex.assert_trees_all_equal(begun, make_params(session.config.model))
        started = jax.device_get(session.load_start(run_dir))
        # Scripts of the task are demonstrations for it, too.
        played = sft.play_demonstrations(session)
    chex.assert_trees_all_equal(started, taught)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), begun, taught)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01
    assert len(played) == 12 and any(t.success for t in played)
    cli.parse(TrainArguments, CHAT, program="tests")  # the same options go on with training
    convert.run(["export", str(run_dir), "--out", str(tmp_path / "out")])
    exported = hf_weights.load_params(hf_weights.open_checkpoint(tmp_path / "out"))
    chex.assert_trees_all_equal(exported, taught)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")  # qwix 0.1.8
def test_adapters_are_taught_beside_an_imported_model(tmp_path):
    pytest.importorskip("qwix", reason="needs the extra `lora`")
    options = ["--lora.rank", "2", "--lora.targets", "q_proj", "--sft.steps", "1"]
    run_dir = imported(tmp_path, *options)
    with open_session([*CHAT, *options], run_dir) as session:
        started = jax.device_get(session.load_start(run_dir))
        chex.assert_trees_all_equal(started["base"], make_params(session.config.model))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(started["adapter"]))  # B began at 0
