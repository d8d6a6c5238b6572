"""Training that is resumed: one short run, and a copy of it for each case."""

from __future__ import annotations

import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.cases.folders import launch
from benchmarks.cases.row import Adapter, Outcome

SMALL = [
    *("--model.width", "16", "--model.layers", "1", "--model.head-dim", "8"),
    *("--model.mlp-width", "32", "--rollout.slots", "8", "--rollout.turn-tokens", "12"),
    *("--sft.steps", "2", "--sft.rows", "8", "--sft.demonstrations", "20"),
    *("--train.prompts", "2", "--train.group-size", "3", "--train.rows", "8"),
    *("--train.checkpoint-every", "1", "--train.gate", "0", "--evaluation.problems", "2"),
]


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapter of the area `launch.train --resume`."""
    with tempfile.TemporaryDirectory() as temporary:
        yield {"launch.train --resume": functools.partial(_resume, pathlib.Path(temporary))}


def _resume(folder: pathlib.Path, given: Mapping[str, Any]) -> Outcome | None:
    """Resumes a finished run of two steps after a change of its checkpoints or of an option."""
    first = folder / "first"
    if not first.exists():
        for launcher, options in (("sft", []), ("train", ["--train.steps", "2"])):
            made = launch(launcher, *SMALL, *options, "--run-dir", first)
            if not made.accepted:
                raise RuntimeError(f"the run to be resumed failed: {made.text}")
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(first, run)
    if "checkpoints" in given:
        for name in given["checkpoints"]:
            (run / "train" / "checkpoints" / name.split()[0]).mkdir(exist_ok=True)
        return launch("train", "--resume", "--run-dir", run)
    if not str(given.get("option")).startswith("--"):
        return None
    options = given["option"].partition(" (")[0].split()
    return launch("train", "--resume", "--run-dir", run, *options)
