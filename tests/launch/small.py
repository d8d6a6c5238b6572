"""A run that takes seconds: the whole pipeline with a model of two thousand parameters."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from launch import cli

ROOT = pathlib.Path(__file__).parents[2]

MEASURED = ("time/", "memory/", "tool/latency")
"""Prefixes of the names of metrics that differ between two equal runs."""

OPTIONS = [
    *("--model.width", "16", "--model.layers", "1", "--model.head-dim", "8"),
    *("--model.mlp-width", "32", "--rollout.slots", "8", "--rollout.turn-tokens", "12"),
    *("--sft.steps", "6", "--sft.rows", "8", "--sft.demonstrations", "60"),
    *("--sft.checkpoint-every", "2", "--train.steps", "6", "--train.prompts", "2"),
    *("--train.group-size", "3", "--train.rows", "8", "--train.eval-every", "3"),
    *("--train.checkpoint-every", "1", "--train.gate", "0", "--evaluation.problems", "6"),
]


def command(launcher: str, *options: object) -> list[str]:
    """The command line of a launcher with the small options."""
    return [sys.executable, "-m", f"launch.{launcher}", *OPTIONS, *map(str, options)]


def start(launcher: str, *options: object) -> subprocess.Popen[str]:
    """Starts a launcher in its own process."""
    return subprocess.Popen(
        command(launcher, *options),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(launcher: str, *options: object) -> str:
    """Runs a launcher to its end and returns its output."""
    process = start(launcher, *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def records(run_dir: pathlib.Path, phase: str) -> list[dict]:
    """The metrics of a phase, without those that measure time and memory."""
    lines = (run_dir / phase / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith(MEASURED)}
        for line in lines
    ]


def parse(kind: type[cli.Arguments], *options: object):
    """Arguments of a launcher with the small options."""
    return cli.parse(kind, [*OPTIONS, *map(str, options)], program="tests")
