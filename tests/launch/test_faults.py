"""Faults of the machine: one line each, before any work if they can be known."""

from __future__ import annotations

import errno
import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from configs.presets import PRESETS
from gtpo_jax.devices import sharding
from launch import cli, evaluate, sft, train_tokenizer
from launch.planning import topologies
from launch.run import memory
from tests.launch.test_cli import with_setting

TINY = PRESETS["tiny"]


def ended(run, capsys, monkeypatch, *options: object) -> tuple[int, str]:
    """The exit status of a launcher, and its only line on stderr."""
    monkeypatch.setattr(sys, "argv", ["launch", *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        cli.main(run)
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    return stop.value.code, message


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (sft.SftArguments, "--run-dir"),
        (evaluate.EvaluateArguments, "--json"),
        (train_tokenizer.TokenizerArguments, "--out"),
    ],
)
def test_place_below_a_file_is_told_before_work(kind, option, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "a" / "b", pathlib.Path("/proc/1/none")):
        with pytest.raises(ValueError, match=rf"{option} .*; choose another place"):
            cli.parse(kind, [option, str(place)], program="tests")


def test_folder_and_file_are_not_taken_for_each_other(tmp_path):
    (tmp_path / "file").touch()
    for option, place in (("--run-dir", tmp_path / "file"), ("--json", tmp_path)):
        with pytest.raises(ValueError, match=rf"{option} .* is a (file|folder)"):
            cli.parse(sft.SftArguments, [option, str(place)], program="tests")


def test_run_is_read_where_it_cannot_be_written(tmp_path):
    options = ["--run-dir", "/proc/1/none", "--prompt", "1 + 1"]
    from launch import rollout

    assert cli.parse(rollout.RolloutArguments, options, program="tests").prompt == "1 + 1"


@pytest.mark.parametrize(
    ("number", "status"),
    [
        *((errno.ENOTDIR, cli.EXIT_BAD_INPUT), (errno.EROFS, cli.EXIT_BAD_INPUT)),
        *((errno.EACCES, cli.EXIT_BAD_INPUT), (errno.EISDIR, cli.EXIT_BAD_INPUT)),
        *((errno.ENOSPC, cli.EXIT_FAILED), (errno.EDQUOT, cli.EXIT_FAILED)),
    ],
)
def test_fault_of_a_file_is_one_line(number, status, capsys, monkeypatch):
    def run(_):
        raise OSError(number, "what the system says", "metrics.jsonl")

    found, message = ended(run, capsys, monkeypatch)
    assert found == status
    assert message.startswith("error: metrics.jsonl: what the system says")


def test_other_fault_keeps_its_traceback(monkeypatch):
    def run(_):
        raise OSError(errno.EIO, "input/output error", "metrics.jsonl")

    monkeypatch.setattr(sys, "argv", ["launch"])
    with pytest.raises(OSError):
        cli.main(run)


@pytest.mark.parametrize(
    "allocate", [lambda: jnp.zeros(10**13), lambda: np.zeros(10**14) + 1], ids=["jax", "numpy"]
)
def test_memory_that_runs_out_names_what_to_lower(allocate, capsys, monkeypatch):
    status, message = ended(lambda _: allocate(), capsys, monkeypatch)
    assert status == cli.EXIT_FAILED
    for word in ("out of memory", "rollout.slots", "train.rows", "remat", "launch.plan"):
        assert word in message
    assert "40000000000000" in message or "728. TiB" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rollout.slots", 10**10),
        ("rollout.parked", 10**10),
        ("train.rows", 8 * 10**9),
        ("sft.rows", 8 * 10**9),
    ],
)
def test_run_that_never_fits_is_refused(option, value):
    mesh = sharding.make_mesh()
    memory.check_memory(TINY, mesh)
    with pytest.raises(ValueError, match=rf"{option} {value:,} .*lower it.*launch.plan"):
        memory.check_memory(with_setting(TINY, option, value), mesh)


def test_least_memory_is_that_of_the_cache_and_of_the_logits():
    """With 8 devices, each has 16 rows of the rollout and 2 of a batch."""
    found = memory.least_bytes(TINY, sharding.make_mesh())
    model = TINY.model
    cache = 16 * 160 * 2 * model.layers * model.kv_heads * model.head_dim * 4
    assert found["rollout.slots 128"] == cache
    largest = max(model.vocab_size, model.layers * model.width)
    assert found["train.rows 16 of 160 tokens"] == 2 * 160 * largest * 4


def test_plan_for_tpus_names_the_extra(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(ValueError, match=r"needs libtpu.*pip install -e '.\[tpu-plan\]'"):
        topologies.find("v5e:2x2")


CHOSEN = """
import json, sys, jax
from launch.run import platforms
platforms.TPU_FILES = tuple(json.loads(sys.argv[1]))
platforms.leave_out_tpus()
print(jax.config.jax_platforms)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "variables", "chosen"),
    [
        ([], {}, "cpu"),
        (["/dev/null"], {}, "None"),
        ([], {"TPU_WORKER_ID": "0"}, "None"),
        ([], {"JAX_PLATFORMS": "cpu,tpu"}, "cpu,tpu"),
    ],
)
def test_tpus_are_not_looked_for_where_there_are_none(files, variables, chosen, tmp_path):
    """libtpu is a stand-in: JAX would ask it for TPUs, which this program does not do."""
    (tmp_path / "libtpu.py").touch()
    environment = {"PATH": "/usr/bin", "PYTHONPATH": f"{tmp_path}:{pathlib.Path.cwd()}"} | variables
    program = [sys.executable, "-c", CHOSEN, json.dumps(files)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == chosen
