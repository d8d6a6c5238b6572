"""A run that is killed, stopped or damaged and then resumed equals an uninterrupted run."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gtpo_jax.learner.checkpoint import saved_steps
from launch import cli, sft
from tests.launch import small
from tests.launch.forked import Run, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of a running process are Linux's"),
]

STEPS = 6
OPTIONS = [
    *small.OPTIONS,
    # Enough of a cold start for groups with signal: without one nothing would change any more.
    *("--task.families", "arithmetic", "--sft.steps", "50", "--sft.checkpoint-every", "5"),
    *("--sft.optimizer.learning-rate", "0.03", "--sft.optimizer.warmup-steps", "5"),
    *("--train.group-size", "4", "--rollout.turn-tokens", "20", "--train.eval-every", "0"),
    *("--train.epochs", "2", "--train.method", "gtpo", "silence_equal=false"),
    # A weight that changes from step to step, and a plan of several rounds, whose later ones go on
    # in the caches of earlier ones.
    *("+", "kl_schedule", "steps=6", "+", "icepop", "+", "score_centering", "count=4"),
    *("+", "arpo", "trunks=2"),
    *("--tool.preload", "numpy"),
]


DYNAMIC = (
    "--train.method",
    *["gtpo", "silence_equal=false", "+", "kl", "weight=0.1", "+", "dppo", "+", "decoupled_ppo"],
    # Prompts with a state: the problems and group sizes of a step depend on all steps before it.
    *["+", "vade", "+", "knapsack", "+", "dynamic_sampling", "rounds=2"],
    *["--train.pool", "9"],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "log")
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole_run(server, tmp_path_factory) -> pathlib.Path:
    """Both phases, uninterrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    server.finish("sft", *OPTIONS, "--run-dir", run_dir)
    figures = ("--json", run_dir / "figures.json")
    server.finish("train", *OPTIONS, "--run-dir", run_dir, *figures)
    moved = [record["update/grad_norm"] > 0 for record in small.records(run_dir, "train")]
    assert all(moved) and len(moved) == STEPS, "a step that changes nothing would prove nothing"
    return run_dir


@pytest.fixture
def run_dir(whole_run, tmp_path) -> pathlib.Path:
    """A run with a finished cold start."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole_run / "sft", run_dir / "sft")
    shutil.copy(whole_run / "tokenizer.model", run_dir)
    return run_dir


def done(phase: pathlib.Path) -> int:
    """Steps in the metrics of a phase."""
    metrics = phase / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def half_written(phase: pathlib.Path) -> list[pathlib.Path]:
    return list((phase / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def state(run_dir: pathlib.Path, phase: str, step: int) -> dict:
    """A checkpoint as raw files, not read by this program."""
    folder = run_dir / phase / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(folder).item_metadata.tree
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(folder, restore_args=numpy)


def assert_same(run_dir: pathlib.Path, whole_run: pathlib.Path, phase: str, step: int) -> None:
    """Metrics and the last state are bitwise equal."""
    assert small.records(run_dir, phase) == small.records(whole_run, phase)
    jax.tree.map(
        np.testing.assert_array_equal, state(run_dir, phase, step), state(whole_run, phase, step)
    )


def as_printed(printed: str) -> list[str]:
    """Launcher and options of the command to continue, from the output of a run."""
    command = re.search(r"go on with `python -m launch\.([^`]+)`", printed)
    assert command is not None, printed
    return shlex.split(command[1])


def at_random(run: Run, phase: pathlib.Path, rng: random.Random) -> None:
    """Kills the run somewhere before its last step ends."""
    before = rng.randrange(done(phase), STEPS - 1)
    run.wait_for(lambda: done(phase) >= before)
    time.sleep(rng.uniform(0, 0.1))
    run.kill()


def in_a_save(run: Run, phase: pathlib.Path) -> None:
    """Kills the run while a checkpoint is half written."""
    # The one that is there may have been left by an earlier kill.
    old = half_written(phase)
    run.wait_for(lambda: set(half_written(phase)) - set(old))
    run.kill()
    assert half_written(phase)


def test_training_killed_and_resumed_is_the_run_that_was_not(server, whole_run, run_dir, tmp_path):
    phase, options = run_dir / "train", (*OPTIONS, "--run-dir", run_dir, "--resume-if-any")
    at_random(server.start("train", *options), phase, random.Random(0))
    in_a_save(server.start("train", *options), phase)
    printed = server.finish("train", *options, "--json", tmp_path / "figures.json")
    assert "train goes on from step " in printed
    assert_same(run_dir, whole_run, "train", STEPS)
    figures = [folder / "figures.json" for folder in (tmp_path, whole_run)]
    assert figures[0].read_text() == figures[1].read_text()


@pytest.mark.long
def test_training_killed_at_twenty_moments_is_the_run_that_was_not(server, whole_run, tmp_path):
    kills, saves, rng = 0, 0, random.Random(1)
    for number in range(20):
        run_dir = tmp_path / str(number)
        shutil.copytree(whole_run / "sft", run_dir / "sft")
        shutil.copy(whole_run / "tokenizer.model", run_dir)
        options = (*OPTIONS, "--run-dir", run_dir, "--resume-if-any")
        while done(run_dir / "train") < STEPS - 1:
            run = server.start("train", *options)
            if rng.random() < 1 / 3:
                in_a_save(run, run_dir / "train")
                saves += 1
            else:
                at_random(run, run_dir / "train", rng)
            kills += 1
        server.finish("train", *options)
        assert_same(run_dir, whole_run, "train", STEPS)
        if kills >= 20 and saves >= 4:
            return
    raise AssertionError(f"only {kills} kills, {saves} in a save")


@pytest.mark.long
def test_training_in_rounds_killed_and_resumed_is_the_run_that_was_not(server, run_dir, tmp_path):
    options, other = (*OPTIONS, *DYNAMIC), tmp_path / "whole"
    shutil.copytree(run_dir, other)
    server.finish("train", *options, "--run-dir", other)
    in_a_save(server.start("train", *options, "--run-dir", run_dir), run_dir / "train")
    server.finish("train", *options, "--run-dir", run_dir, "--resume-if-any")
    assert_same(run_dir, other, "train", STEPS)
    assert any(record["rollout/rounds"] == 2 for record in small.records(run_dir, "train"))


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ["igrpo", "drafts=2"],
        ["multi_layer_grpo", "corrections=2"],
        ["guided_correction", "solution=None"],
        ["tempsamp"],
        ["training_free_grpo", "update=true"],
    ],
    ids=lambda words: words[0],
)
def test_training_with_a_plan_killed_and_resumed_is_the_run_that_was_not(
    words, server, run_dir, tmp_path
):
    method = ("--train.method", "gtpo", "silence_equal=false", "+", *words)
    options, other = (*OPTIONS, *method), tmp_path / "whole"
    shutil.copytree(run_dir, other)
    server.finish("train", *options, "--run-dir", other)
    in_a_save(server.start("train", *options, "--run-dir", run_dir), run_dir / "train")
    server.finish("train", *options, "--run-dir", run_dir, "--resume-if-any")
    assert_same(run_dir, other, "train", STEPS)


@pytest.mark.long
def test_cold_start_without_room_interrupted_and_killed_is_the_run_that_was_not(
    server, whole_run, tmp_path
):
    run_dir = tmp_path / "run"
    phase, options = run_dir / "sft", (*OPTIONS, "--run-dir", run_dir)
    checkpoints = phase / "checkpoints"

    def newest() -> int:
        return max(saved_steps(checkpoints), default=0)

    run = server.start("sft", *options, "--resume-if-any")
    run.wait_for(newest)
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (8192, 8192))
    status, printed = run.end()
    assert status == cli.EXIT_FAILED and "Traceback" not in printed, printed
    assert f"sft begins: no checkpoint in {checkpoints}" in printed
    full = newest()
    assert printed.splitlines()[-1] == (
        f"error: checkpoint {full + 5} could not be saved in {checkpoints}: File too large;"
        f" the last good one is step {full}"
    )

    run = server.start("sft", *options, "--resume")
    run.wait_for(lambda: newest() > full)
    run.send(signal.SIGINT)
    status, printed = run.end()
    assert status == cli.EXIT_INTERRUPTED and "Traceback" not in printed, printed
    interrupted = newest()
    assert f"saved step {interrupted}; go on with `python -m launch.sft --resume" in printed

    # The demonstrations fill two or three batches: an epoch ends before every checkpoint.
    run = server.start(*as_printed(printed))
    run.wait_for(lambda: newest() > interrupted)
    run.kill()
    server.finish("sft", *options, "--resume")
    assert_same(run_dir, whole_run, "sft", 50)


def test_preemption_and_damage_lose_nothing_that_was_saved(server, whole_run, run_dir):
    phase, options = run_dir / "train", (*OPTIONS, "--run-dir", run_dir)
    checkpoints = phase / "checkpoints"
    run = server.start("train", *options)
    run.wait_for(lambda: 2 in saved_steps(checkpoints))
    for _ in range(20):  # several processes print it
        run.send(signal.SIGTERM)
        time.sleep(0.005)
    status, printed = run.end()
    [stopped, before] = saved_steps(checkpoints)
    assert status == cli.EXIT_PREEMPTED, printed
    assert printed.splitlines()[-1] == (
        f"stopped by SIGTERM; saved step {stopped}; go on with `python -m launch.train --resume"
        f" --run-dir {shlex.quote(str(run_dir))}`"
    )
    assert done(phase) == stopped < STEPS

    largest = max((checkpoints / str(stopped)).rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    printed = server.finish(*as_printed(printed))
    assert f"checkpoint {stopped} in {checkpoints} is damaged" in printed
    assert f"train goes on from step {before}" in printed
    assert (checkpoints / f"{stopped}.damaged").is_dir()
    assert_same(run_dir, whole_run, "train", STEPS)


def test_finished_run_goes_on_with_more_steps_and_other_settings(server, whole_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(whole_run, run_dir)
    options = ("--resume", "--run-dir", run_dir, "--train.steps", STEPS + 1, "--tool.running", 4)
    printed = server.finish("train", *options)
    assert f"train, from step {STEPS} on: train.steps {STEPS} → {STEPS + 1}\n" in printed
    assert small.records(run_dir, "train")[:STEPS] == small.records(whole_run, "train")
    config = json.loads((run_dir / "train" / "config.json").read_text())
    assert (config["train"]["steps"], config["tool"]["running"]) == (STEPS + 1, 4)
    printed = server.finish("train", "--resume", "--run-dir", run_dir)
    assert f"train goes on from step {STEPS + 1}\n" in printed and "train, from" not in printed


@pytest.mark.long
def test_run_that_was_made_longer_is_the_run_that_was_as_long(server, whole_run, run_dir, tmp_path):
    """The longer run keeps the learning rate that it began with."""
    longer = tmp_path / "longer"
    shutil.copytree(whole_run, longer)
    server.finish("train", "--resume", "--run-dir", longer, "--train.steps", STEPS + 3)
    decay = ("--train.optimizer.decay-steps", STEPS)
    options = (*OPTIONS, "--train.steps", STEPS + 3, *decay)
    server.finish("train", *options, "--run-dir", run_dir)
    first, second = (small.records(path, "train") for path in (longer, run_dir))
    for name in ("eval/sampled_success", "eval/sampled_violations"):
        del first[STEPS - 1][name]  # its last step once, and evaluated
    assert first == second
    jax.tree.map(
        np.testing.assert_array_equal,
        state(longer, "train", STEPS + 3),
        state(run_dir, "train", STEPS + 3),
    )


@pytest.mark.long
def test_preemption_between_phases_loses_nothing(server, tmp_path):
    run_dir = tmp_path / "run"
    run = server.start("demo", *OPTIONS, "--sft.steps", 5, "--run-dir", run_dir)
    run.wait_for(lambda: 5 in saved_steps(run_dir / "sft" / "checkpoints"))
    time.sleep(0.2)
    run.send(signal.SIGTERM)
    status, printed = run.end()
    assert status == cli.EXIT_PREEMPTED, printed
    again = f"go on with `python -m launch.demo --resume --run-dir {shlex.quote(str(run_dir))}`"
    assert printed.splitlines()[-1].endswith(again)
    assert "Traceback" not in printed and not (run_dir / "train").exists()


@pytest.mark.long
def test_resume_on_more_devices_is_close(whole_run, tmp_path):
    """From one device to the eight of this process."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole_run, run_dir)
    shutil.rmtree(run_dir / "sft" / "checkpoints" / "50")
    sft.run([*OPTIONS, "--run-dir", str(run_dir), "--resume"])
    found, expected = (small.records(path, "sft") for path in (run_dir, whole_run))
    assert found[:-1] == expected[:-1], "those of before are kept"
    for name, value in expected[-1].items():
        np.testing.assert_allclose(found[-1][name], value, rtol=1e-3, atol=1e-6)
    versions = json.loads((run_dir / "sft" / "versions.json").read_text())
    assert [(entry["step"], entry["devices"]) for entry in versions] == [(0, 1), (45, 8)]
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5),
        state(run_dir, "sft", 50),
        state(whole_run, "sft", 50),
    )


@pytest.mark.long
def test_one_of_two_processes_that_is_told_to_stop_stops_both(tmp_path):
    run_dir, logs = tmp_path / "run", tmp_path / "logs"
    checkpoints = run_dir / "sft" / "checkpoints"
    command = [sys.executable, "-m", "launch.local_cluster", "--processes", "2", "--devices", "2"]
    command += ["--logs", str(logs), "--program", "sft", "--", "tiny", *OPTIONS]
    cluster = subprocess.Popen(
        [*command, "--run-dir", str(run_dir), "--resume-if-any"],
        cwd=small.ROOT,
        env=os.environ | {"PYTHONPATH": str(small.ROOT), "XLA_FLAGS": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not saved_steps(checkpoints):
            assert cluster.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        children = pathlib.Path(f"/proc/{cluster.pid}/task/{cluster.pid}/children").read_text()
        os.kill(int(children.split()[1]), signal.SIGTERM)
        _, errors = cluster.communicate(timeout=120)
    finally:
        if cluster.poll() is None:
            cluster.terminate()
            cluster.communicate()
    assert cluster.returncode == cli.EXIT_PREEMPTED, errors
    saved = f"stopped by SIGTERM; saved step {max(saved_steps(checkpoints))}; go on with"
    assert saved in errors and saved in (logs / "process-1.log").read_text()
