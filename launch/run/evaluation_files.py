"""The results of one evaluation on disk: part by part, so that it can stop anywhere and go on.

    settings.json                 what the results depend on
    sampled/part-00001.jsonl.gz   a part: trajectories, each with its outcome
    sampled/trajectories.jsonl.gz all parts; at the end, like what follows
    problems.jsonl                one line a problem and mode
    summary.json                  all figures

A part has its name when all of it is written. What is in a part is not rolled out again, and a
trajectory depends on nothing but the policy, its problem and its number: so it does not matter how
an evaluation was cut into parts, nor whether samples or problems were fewer before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import RunConfig
from gtpo_jax.devices import processes
from gtpo_jax.results import evaluation, records
from gtpo_jax.results.evaluation import Outcome
from gtpo_jax.rollout import Request
from gtpo_jax.types import Params, Tokenizer, Trajectory
from launch import cli
from launch.run import cluster

Key = tuple[str, str, int]
"""Mode, problem, sample."""

SETTINGS = ("model", "tokenizer", "dialogue", "lora", "seed", "task", "rollout", "tool")
"""Fields of a config that change what an evaluation gives; its number of problems and samples only
changes how much."""

WHOLE, PART = "trajectories.jsonl.gz", "part-[0-9]*.jsonl.gz"
PROBLEMS = "problems.jsonl"

FILLS = 4
"""A part has as many trajectories as fill all slots so many times."""


class Results:
    """What an evaluation has found so far. Process 0 reads and writes."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any], tokenizer: Tokenizer):
        self.folder, self.tokenizer = folder, tokenizer
        self.settings = json.loads(json.dumps(settings))
        self.outcomes: dict[Key, Outcome] = {}
        self._texts: dict[str, tuple[str, str]] = {}  # id → question, answer
        with processes.together("the folder of the evaluation"):
            if cluster.is_first():
                self._open()
        self.done = processes.gather_objects(set(self.outcomes))[0]

    def missing(self, mode: str, requests: Sequence[Request]) -> list[Request]:
        """The requests that have not been answered.

        Raises ValueError where one of those that have been had another problem by the same name.
        """
        for problem in {r.problem.id: r.problem for r in requests}.values():
            found = self._texts.get(problem.id, (problem.question, problem.answer))
            if found != (problem.question, problem.answer):
                raise ValueError(
                    f"{self.folder} has results of another problem {problem.id!r}; give this"
                    " evaluation another --name"
                )
        return [r for r in requests if (mode, r.problem.id, r.sample) not in self.done]

    def add(self, mode: str, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Saves a part."""
        new = {
            (mode, outcome.problem, outcome.sample): outcome
            for outcome in map(evaluation.outcome_of, trajectories)
        }
        self.done |= new.keys()
        if not cluster.is_first():
            return
        records.write_records(
            self.folder / mode / f"part-{1 + len(self._parts(mode)):05d}.jsonl.gz",
            (
                records.trajectory_record(trajectory, self.tokenizer, step=step)
                | {"mode": mode, "outcome": dataclasses.asdict(outcome)}
                for trajectory, outcome in zip(trajectories, new.values(), strict=True)
            ),
        )
        self.outcomes |= new

    def of(self, mode: str, requests: Sequence[Request]) -> list[Outcome]:
        """The outcomes of requests that are done, in their order."""
        return [self.outcomes[mode, r.problem.id, r.sample] for r in requests]

    def join_parts(self, mode: str) -> None:
        """Makes one file of the parts."""
        parts, whole = self._parts(mode), self.folder / mode / WHOLE
        if not parts:
            return
        temporary = whole.with_name(whole.name + ".tmp")
        with temporary.open("wb") as joined:  # of compressed files one after the other
            for path in ([whole] if whole.exists() else []) + parts:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        temporary.replace(whole)
        # From the last on: those that are left when this is stopped are numbered without a gap.
        for path in reversed(parts):
            path.unlink()

    def write_problems(self, requests: Mapping[str, Sequence[Request]]) -> None:
        """One JSON line a problem and mode, in the order of the requests."""
        lines = []
        for mode, asked in requests.items():
            problems = {r.problem.id: r.problem for r in asked}
            for id, group in evaluation.by_problem(self.of(mode, asked)).items():
                known = [outcome for outcome in group if outcome.included]
                line = {
                    "mode": mode,
                    "problem": id,
                    "family": problems[id].family,
                    "question": problems[id].question,
                    "answer": problems[id].answer,
                    "known": len(known),
                    "right": sum(outcome.success for outcome in known),
                    "samples": [dataclasses.asdict(outcome) for outcome in group],
                }
                for sample in line["samples"]:
                    del sample["problem"], sample["family"]
                lines.append(json.dumps(line) + "\n")
        temporary = self.folder / f"{PROBLEMS}.tmp"
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(self.folder / PROBLEMS)

    def _open(self) -> None:
        path = self.folder / "settings.json"
        if path.exists():
            changed = sorted(_changed(json.loads(path.read_text(encoding="utf-8")), self.settings))
            if changed:
                raise ValueError(
                    f"{path} was written with other settings ({', '.join(changed)}); use the same"
                    " ones to go on, or give this evaluation another --name"
                )
        else:
            cli.write_json(path, self.settings)
        for path in sorted(self.folder.glob(f"*/{WHOLE}")):
            self._read(path)
        for path in sorted(self.folder.glob(f"*/{PART}"), reverse=True):
            if not self._read(path):
                path.unlink()  # it was stopped when the part had been joined already

    def _read(self, path: pathlib.Path) -> bool:
        """Whether a file has something new."""
        before = len(self.outcomes)
        for record in records.read_records(path):
            outcome = Outcome(**record["outcome"])
            self.outcomes[record["mode"], outcome.problem, outcome.sample] = outcome
            texts = record["problem"]["question"], record["problem"]["answer"]
            self._texts[outcome.problem] = texts
        return len(self.outcomes) > before

    def _parts(self, mode: str) -> list[pathlib.Path]:
        return sorted((self.folder / mode).glob(PART))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What an evaluation that went to its end has left."""

    outcomes: dict[str, list[Outcome]]  # of each mode
    texts: dict[str, tuple[str, str]]  # question and answer of each problem, by its id


def read_problems(folder: pathlib.Path) -> Written:
    """What `Results.write_problems` wrote. Raises ValueError for what it could not have written."""
    path, number = folder / PROBLEMS, 0
    found = Written(outcomes={}, texts={})
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                number += 1
                line = json.loads(text)
                id, family = line["problem"], line["family"]
                found.texts[id] = line["question"], line["answer"]
                outcomes = found.outcomes.setdefault(line["mode"], [])
                outcomes += [Outcome(problem=id, family=family, **s) for s in line["samples"]]
    except OSError as error:
        raise ValueError(f"cannot read the results of an evaluation from {path}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}, line {number}: expected a problem with its samples, as `launch.evaluate`"
            f" writes it; {type(error).__name__}: {error}"
        ) from None
    return found


def parts(requests: Sequence[Request], slots: int) -> Iterator[list[Request]]:
    """The requests in parts of whole problems."""
    part: list[Request] = []
    for _, group in itertools.groupby(requests, key=lambda request: request.problem.id):
        part += group
        if len(part) >= FILLS * slots * jax.process_count():
            yield part
            part = []
    if part:
        yield part


def settings(config: RunConfig, checkpoint: pathlib.Path, params: Params) -> dict[str, Any]:
    """What the results of an evaluation depend on."""
    fields = dataclasses.asdict(config)
    return {
        "checkpoint": str(checkpoint),
        "parameters": digest(params),
        "evaluation": {"temperature": config.evaluation.temperature},
        **{name: fields[name] for name in SETTINGS},
    }


def digest(params: Params) -> str:
    """A few letters that differ when a parameter does, wherever the parameters lie."""

    def mixed(leaf: jax.Array) -> jax.Array:
        """The sum over entries, modulo 2³², of their bits times a number that their place has."""
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
        place = jnp.ones(leaf.shape, jnp.uint32)
        for axis in range(leaf.ndim):
            along = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
            place = place * jnp.uint32(0x9E3779B1) + 2 * along
        return jnp.sum(bits * place, dtype=jnp.uint32)

    leaves = jax.tree_util.tree_leaves_with_path(params)
    sums = jax.device_get(
        jax.jit(lambda leaves: [mixed(x) for x in leaves])([x for _, x in leaves])
    )
    told = [
        [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype), int(total)]
        for (path, leaf), total in zip(leaves, sums, strict=True)
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _changed(saved: Any, current: Any, prefix: str = "") -> Iterator[str]:
    """Names of the settings that differ, as in `rollout.context`."""
    if isinstance(saved, dict) and isinstance(current, dict):
        for name in saved.keys() | current.keys():
            path = f"{prefix}.{name}" if prefix else name
            yield from _changed(saved.get(name), current.get(name), path)
    elif saved != current:
        yield prefix
