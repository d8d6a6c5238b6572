"""A run that is killed and resumed is the run that was never killed (T-90)."""

from __future__ import annotations

import pathlib
import shutil
import signal
import time
from collections.abc import Callable

import pytest

from gtpo_jax.checkpoint import has_checkpoint
from tests.launch import small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> pathlib.Path:
    """Both phases, never interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    small.finish("sft", "--run-dir", run_dir)
    small.finish("train", "--run-dir", run_dir, "--json", run_dir / "figures.json")
    return run_dir


def wait_for(process, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.005)


def has_come(phase: pathlib.Path, lines: int) -> bool:
    """The phase has written so many metrics, and a checkpoint (saving is asynchronous)."""
    metrics = phase / "metrics.jsonl"
    written = metrics.read_text().count("\n") if metrics.exists() else 0
    return written >= lines and has_checkpoint(phase / "checkpoints")


@pytest.mark.parametrize("lines", [2, 4])
def test_training_killed_and_resumed_ends_with_the_same_metrics(whole_run, tmp_path, lines):
    run_dir = tmp_path / "run"
    shutil.copytree(whole_run / "sft", run_dir / "sft")
    shutil.copy(whole_run / "tokenizer.model", run_dir)
    process = small.start("train", "--run-dir", run_dir)
    wait_for(process, lambda: has_come(run_dir / "train", lines))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(small.records(run_dir, "train")) < 6, "the run ended before it was killed"

    small.finish("train", "--run-dir", run_dir, "--resume", "--json", run_dir / "figures.json")
    assert small.records(run_dir, "train") == small.records(whole_run, "train")
    assert (run_dir / "figures.json").read_text() == (whole_run / "figures.json").read_text()


def test_training_in_rounds_killed_and_resumed_ends_with_the_same_metrics(whole_run, tmp_path):
    rounds = ("--train.sampling-rounds", 2)
    runs = tmp_path / "whole", tmp_path / "killed"
    for run_dir in runs:
        shutil.copytree(whole_run / "sft", run_dir / "sft")
        shutil.copy(whole_run / "tokenizer.model", run_dir)
    small.finish("train", "--run-dir", runs[0], *rounds)
    process = small.start("train", "--run-dir", runs[1], *rounds)
    wait_for(process, lambda: has_come(runs[1] / "train", 2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(small.records(runs[1], "train")) < 6, "the run ended before it was killed"

    small.finish("train", "--run-dir", runs[1], *rounds, "--resume")
    assert small.records(runs[1], "train") == small.records(runs[0], "train")
    assert any(record["rollout/rounds"] == 2 for record in small.records(runs[0], "train"))


def test_cold_start_killed_and_resumed_ends_with_the_same_metrics(whole_run, tmp_path):
    run_dir = tmp_path / "run"
    more = ("--run-dir", run_dir)
    process = small.start("sft", *more)
    wait_for(process, lambda: has_checkpoint(run_dir / "sft" / "checkpoints"))
    process.send_signal(signal.SIGKILL)
    process.communicate()

    small.finish("sft", *more, "--resume")
    assert small.records(run_dir, "sft") == small.records(whole_run, "sft")


def test_interrupt_saves_and_says_how_to_go_on(whole_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(whole_run / "sft", run_dir / "sft")
    shutil.copy(whole_run / "tokenizer.model", run_dir)
    process = small.start("train", "--run-dir", run_dir, "--train.checkpoint-every", "100")
    metrics = run_dir / "train" / "metrics.jsonl"
    wait_for(process, lambda: metrics.exists() and metrics.read_text().count("\n") >= 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in errors and "Traceback" not in errors
    done = len(small.records(run_dir, "train"))
    assert 1 <= done < 6
    assert (run_dir / "train" / "checkpoints" / str(done)).is_dir()
