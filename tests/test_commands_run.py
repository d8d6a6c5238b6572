"""The commands that the pages print run as they are printed, in a fresh clone.

Two or three dozen processes, minutes in all: `-m long`. What a page presumes, a run of some length
or a model from a hub, is made beforehand, small. A run that would take longer than its first steps
is then told to stop, and has to save and say how to go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from launch import cli
from tests.commands import PAGES, ROOT, Command, in_blocks, own_module
from tests.hub_folder import write_folder

pytestmark = [pytest.mark.slow, pytest.mark.long]

SECONDS = 1800
RUNS, BEGINS = "runs to its end", "takes its first steps, and saves when it is told to stop"


@dataclasses.dataclass(frozen=True)
class NotHere:
    """The reason why a test cannot run a command."""

    reason: str


# Part of a command → what is done with it; the first that fits. A new command needs a row.
ROWS: dict[str, str | NotHere] = {
    "make ": NotHere("installs packages from an index, as this test's own environment was"),
    "pip install": NotHere("installs packages from an index"),
    "HOST:PORT": NotHere("one process of two; tests/launch/test_local_cluster.py runs both"),
    "--cluster auto": NotHere("needs a pod"),
    "hub:": NotHere("asks the hub of Hugging Face"),
    "docker build": NotHere("needs Docker"),
    "my_module:from_record": NotHere(
        "reads records of another schema; tests/test_own_page.py does"
    ),
    "launch.plan": NotHere("compiles for a TPU for minutes; tests/launch/test_plan_tpu.py does"),
    "source .venv": RUNS,
    "--help": RUNS,
    "--keep-successes": BEGINS,
    "launch.sft tiny --run-dir runs/mine --seed": RUNS,
    "launch.sft": BEGINS,
    "launch.train_tokenizer": RUNS,
    "launch.train": BEGINS,
    "launch.demo": BEGINS,
    "launch.compare": BEGINS,
    "launch.local_cluster": BEGINS,
    "benchmarks.word_problems": BEGINS,
    "tools.doctor": RUNS,
    "launch.methods": RUNS,
    "launch.evaluate": RUNS,
    "launch.report": RUNS,
    "launch.rollout": RUNS,
    "launch.convert": RUNS,
    "launch/hosts/": RUNS,
    "launch.hosts.jobset": RUNS,
}
# Page whose commands are alternatives, not one after the other → the folder that each begins anew.
ALTERNATIVES = {"cold-start.md": "runs/mine", "own.md": "runs/qwen/train"}


def row_of(command: Command) -> str:
    return next((part for part in ROWS if part in command.text), "")


def test_every_command_is_run_or_it_is_said_why_not_and_every_row_is_needed():
    used = {}
    for page in PAGES:
        for command in in_blocks(page):
            used.setdefault(row_of(command), []).append(command.text)
    assert "" not in used, used.get("")
    assert used.keys() == ROWS.keys()


# ------------------------------------------------------------------------- a clone, and its shell


class Clone:
    """The files of this checkout in a folder of their own, with an environment in `.venv`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        left_out = shutil.ignore_patterns(
            *(".git", ".venv", ".cache", "runs", "build", "dist", "__pycache__", "*.egg-info")
        )
        shutil.copytree(ROOT, folder, ignore=left_out)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True
        )
        [packages] = (folder / ".venv").glob("lib/python*/site-packages")
        # What `pip install -e .` writes, and the packages of the interpreter that tests.
        paths = [folder, *(path for path in sys.path if path.endswith("site-packages"))]
        (packages / "all.pth").write_text("\n".join(map(str, paths)) + "\n", encoding="utf-8")
        self.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.environment |= {"NO_COLOR": "1", "COLUMNS": "120"}

    @contextlib.contextmanager
    def started(self, line: str):
        """A shell that becomes the command of a line; what it prints is in the file given."""
        log = self.folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process, log
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def finish(self, line: str) -> str:
        """Runs a line to its end; it must succeed."""
        with self.started(f"set -e -o pipefail; source .venv/bin/activate; {line}") as (
            process,
            log,
        ):
            status = process.wait(SECONDS)
        printed = log.read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"{line}\n{printed[-3000:]}"
        return printed

    def begin(self, line: str, files: str) -> None:
        """Runs a line until it has done a step, and tells it to stop."""
        before = self.steps()
        line = f"source .venv/bin/activate; {files or ':'}; exec {line}"
        with self.started(line) as (process, log):
            until = time.monotonic() + SECONDS
            while self.steps() == before and "successes " not in log.read_text(errors="replace"):
                printed = log.read_text(encoding="utf-8", errors="replace")
                assert process.poll() is None, f"{line}\n{printed[-3000:]}"
                assert time.monotonic() < until, f"{line}\n{printed[-3000:]}"
                time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            status = process.wait(SECONDS)
        printed = log.read_text(encoding="utf-8", errors="replace")
        # A model that solves nothing has no success to keep, and so nothing to go on from.
        nothing = "--keep-successes" in line and "run the same command again" in printed
        told = "; go on with " in printed or nothing
        assert status == cli.EXIT_PREEMPTED and told, printed[-3000:]

    def steps(self) -> int:
        """The lines of metrics of all runs."""
        found = (self.folder / "runs").rglob("metrics.jsonl")
        return sum(path.read_text(encoding="utf-8").count("\n") for path in found)


# -------------------------------------------------------------------------- what the pages presume

TINY = " --sft.steps 2 --sft.demonstrations 60 --sft.rows 8"
STEPS = " --train.prompts 2 --train.group-size 2 --train.rows 8 --train.minibatches 1"
STEPS += " --train.eval-every 0 --train.gate 0 --evaluation.problems 4 --rollout.slots 4"
FILES = "--task.train-file train.jsonl --task.eval-file eval.jsonl"


def problem_files(clone: Clone) -> None:
    """Problems with words enough for the vocabulary of 1,024 pieces that a page asks for."""
    draws = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draws.choices(letters, k=7)) for _ in range(800)]
    lines = [
        {
            "question": f"{words[20 * (i - 2) + j - 3]} has {i} {words[7 * i]} and {j} more."
            " How many?",
            "answer": str(i + j),
            "expression": f"{i} + {j}",
        }
        for i in range(2, 42)
        for j in range(3, 23)
    ]
    for name, part in (("train", lines[:700]), ("eval", lines[700:])):
        text = "".join(json.dumps(line) + "\n" for line in part)
        (clone.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def chats(clone: Clone, *names: str) -> None:
    call = {
        "type": "function",
        "function": {"name": "python", "arguments": {"code": "print(12+34)"}},
    }
    messages = [
        {"role": "user", "content": "12+34?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "46"},
        {"role": "assistant", "content": "<answer>46</answer>"},
    ]
    record = {"id": "c1", "problem": "12+34?", "answer": "46", "messages": messages}
    for name in names:
        lines = [json.dumps(record | {"id": f"{name}-{i}"}) + "\n" for i in range(20)]
        (clone.folder / name).write_text("".join(lines), encoding="utf-8")


def tiny_runs(clone: Clone, *names: str) -> None:
    """Runs of the preset `tiny` that came to step 100."""
    for name in names:
        clone.finish(f"python -m launch.sft tiny --run-dir runs/{name}{TINY}")
        clone.finish(f"python -m launch.train tiny --run-dir runs/{name}{STEPS} --train.steps 100")


def easy_start(clone: Clone, name: str) -> None:
    """A cold start that small reinforcement goes on from, though it has hardly learned."""
    clone.finish(f"python -m launch.sft tiny --run-dir runs/{name}{TINY}{STEPS}")


def hub_folder(clone: Clone, name: str) -> None:
    """A model as a hub gives it, with the layout of Qwen 2.5, that ends its turns at once."""
    write_folder(clone.folder / name, silent="<|im_end|>")


def imported(clone: Clone, run: str) -> None:
    hub_folder(clone, "hub")
    clone.finish(f"python -m launch.convert import hub --run-dir runs/{run}")


def words_run(clone: Clone) -> None:
    tokenizer = f"word-problems {FILES} --vocab-size 1024 --out words.model"
    clone.finish(f"python -m launch.train_tokenizer {tokenizer}")
    run = f"word-problems {FILES} --tokenizer words.model --run-dir runs/words"
    clone.finish(f"python -m launch.sft {run}{TINY}")
    clone.finish(f"python -m launch.train {run}{STEPS} --train.steps 1")


def presume(page: str, clone: Clone) -> None:
    """Makes what a page takes for granted."""
    problem_files(clone)
    match page:
        case "README.md":
            hub_folder(clone, "Qwen2.5-1.5B-Instruct")
        case "cold-start.md":
            hub_folder(clone, "Qwen2.5-1.5B-Instruct")
            imported(clone, "qwen")
            chats(clone, "a.jsonl", "b.jsonl")
        case "algorithms.md":
            easy_start(clone, "mine")
        case "own.md":
            imported(clone, "qwen")
            easy_start(clone, "mine")
            text = own_module(ROOT / "docs" / page)
            (clone.folder / "my_module.py").write_text(text, encoding="utf-8")
        case "evaluation.md":
            words_run(clone)
            tiny_runs(clone, "mine", "other")
        case "models.md" | "tasks.md":
            imported(clone, "mine")
        case "report.md":
            tiny_runs(clone, "mine", "other")
            for name in ("gtpo-1", "gtpo-2"):
                shutil.copytree(clone.folder / "runs/mine", clone.folder / "runs/compare" / name)
        case "weights.md":
            hub_folder(clone, "Qwen2.5-1.5B")
            clone.finish(f"python -m launch.sft tiny --run-dir runs/demo{TINY}")


@pytest.mark.parametrize("page", [page for page in PAGES if in_blocks(page)], ids=lambda p: p.name)
def test_commands_of_a_page_run_as_they_are_printed(page, tmp_path):
    clone = Clone(tmp_path / "clone")
    presume(page.name, clone)
    for command in in_blocks(page):
        for name in re.findall(r"own\.jsonl", command.text):
            if "--sft.files" in command.text and not (clone.folder / name).exists():
                chats(clone, name)  # a model of random weights has no successes of its own
        how = ROWS[row_of(command)]
        if how == RUNS:
            before_a_pipe = re.split(r" \| ", command.text)[0]
            clone.finish(f"{command.files or ':'}; {before_a_pipe}")
        elif how == BEGINS:
            clone.begin(command.text, command.files)
        if page.name in ALTERNATIVES:
            shutil.rmtree(clone.folder / ALTERNATIVES[page.name], ignore_errors=True)
