"""Several processes on this machine as one run: the same curve, and a process that dies."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gtpo_jax.results import metrics
from launch import cli, demo, local_cluster
from tests.launch import small

OPTIONS = [
    *small.OPTIONS,
    *("--sft.steps", "40", "--train.steps", "3", "--train.prompts", "4", "--train.eval-every", "0"),
    *("--train.group-size", "4", "--rollout.turn-tokens", "24", "--sft.checkpoint-every", "20"),
]


def start(run_dir, *options):
    """Two processes of four devices each."""
    cluster = ("--processes", "2", "--devices", "4", "--logs", str(run_dir.with_suffix(".logs")))
    program = ("--", "tiny", *OPTIONS, "--run-dir", str(run_dir), *options)
    return subprocess.Popen(
        [sys.executable, "-m", "launch.local_cluster", *cluster, *program],
        cwd=small.ROOT,
        env=os.environ | {"PYTHONPATH": str(small.ROOT), "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid: int) -> list[int]:
    return [int(n) for n in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize("ignored", [False, True])
def test_interrupt_is_forwarded_unless_it_is_ignored(ignored, interruptible):
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as worker:
        worker.stdout.readline()
        with local_cluster._forwarded([worker]):
            signal.raise_signal(signal.SIGINT)
            if ignored:
                worker.stdin.write(b"end\n")
            worker.communicate(timeout=60)
    assert worker.returncode == (0 if ignored else -signal.SIGINT)


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_learn_as_one_and_outlive_the_death_of_one(tmp_path):
    run_dir, alone = tmp_path / "two", tmp_path / "one"
    cluster = start(run_dir)
    try:
        wait_for(lambda: metrics.read_metrics(run_dir / "train" / "metrics.jsonl"), 240, "step")
        workers = children(cluster.pid)
        os.kill(workers[1], signal.SIGKILL)
        killed = time.monotonic()
        _, errors = cluster.communicate(timeout=240)
    finally:
        if cluster.poll() is None:
            cluster.terminate()
            cluster.communicate()
    assert cluster.returncode == 128 + signal.SIGKILL, errors
    assert "process 1 of 2 was killed by SIGKILL" in errors
    assert time.monotonic() - killed < local_cluster.GRACE_SECONDS + 5
    assert not any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers)

    again = start(run_dir, "--resume")
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    options = ["tiny", *OPTIONS, "--run-dir", str(alone)]
    demo.run_demo(cli.parse(demo.DemoArguments, options, program="tests"))
    for phase in ("sft", "train"):
        found, expected = small.records(run_dir, phase), small.records(alone, phase)
        assert [r["step"] for r in found] == [r["step"] for r in expected]
        for ours, theirs in zip(found, expected, strict=True):
            # Each process has rows of its own, so fewer of all of them are busy.
            named = ours.keys() - {"rollout/busy_rows", "rollout/logprob_gap"}
            for name in named:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    assert max(record["update/grad_norm"] for record in expected) > 1e-3
    assert (run_dir / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--distributed.processes", "2"), "needs distributed.coordinator HOST:PORT"),
        (
            ("--distributed.coordinator", "h:1", "--distributed.process-id", "1"),
            "must be below distributed.processes, 1, got 1",
        ),
        (("--cluster", "auto", "--distributed.coordinator", "h:1"), "leave out one of the two"),
    ],
)
def test_processes_that_cannot_find_each_other_are_bad_input(options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", *options])
    with pytest.raises(SystemExit) as stop:
        cli.main(demo.run)
    assert stop.value.code == cli.EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_cluster_of_nobody_is_bad_input():
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        local_cluster.ClusterArguments(processes=0)


NATIVE = """
import ctypes, pathlib, sys
from launch.run import cluster
cluster.redirect_native_output(pathlib.Path(sys.argv[1]))
ctypes.CDLL(None).puts(b"from C")
ctypes.CDLL(None).fflush(None)
print("from Python: \u00e4")
"""


def test_native_output_is_kept_apart_from_that_of_python(tmp_path):
    """Gloo prints each connection to stdout."""
    log = tmp_path / "native.log"
    done = subprocess.run(
        [sys.executable, "-c", NATIVE, str(log)],
        cwd=small.ROOT,
        env=os.environ | {"PYTHONPATH": str(small.ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == "from Python: \u00e4\n"
    assert log.read_text() == "from C\n"
