"""Hosts for tests: programs that stand in for a cluster's, and that record how they are called."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re

import yaml

from launch import cli
from launch.hosts import jobset

ROOT = pathlib.Path(__file__).parents[2]
HOSTS = ROOT / "launch" / "hosts"

OPTIONS = ["tiny", "--task.train-file", "it's here.jsonl", "--train.steps", "3"]
"""Words that a shell would misread if they were quoted carelessly."""


def rendered(*options: str, train: tuple[str, ...] = ("tiny",)) -> list[str]:
    return pod_of(manifest(*options, train=train))["containers"][0]["args"]


def cli_preempted() -> int:
    """The exit status after which every machine continues, as scripts and manifest know it."""
    known = {cli.EXIT_PREEMPTED}
    for script in (HOSTS / "common.sh", HOSTS / "slurm.sbatch"):
        known |= {
            int(n)
            for n in re.findall(r"^PREEMPTED=(\d+)", script.read_text(encoding="utf-8"), flags=re.M)
        }
    (status,) = known
    return status


GIVEN = ("--name", "first", "--image", "a/b:1", "--volume-claim", "runs")
SHAPES = {
    "tpu": ("--topology", "v5p:4x4x4"),
    "tpu host": ("--topology", "v6e:1x1", "--sandbox", "namespaces"),
    "gpus": ("--gpus", "8", "--hosts", "2", "--spot"),
    "gpu host": ("--gpus", "1", "--node-label", "kind=h200", "--sandbox", "namespaces"),
}


def manifest(*options: str, train: tuple[str, ...] = ("tiny",)) -> dict:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        jobset.run([*GIVEN, *options, "--", *train])
    return yaml.safe_load(text.getvalue())


def job_of(manifest: dict) -> dict:
    (job,) = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def pod_of(manifest: dict) -> dict:
    return job_of(manifest)["template"]["spec"]
