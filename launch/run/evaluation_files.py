"""The results of one evaluation on disk, in parts, so that it can stop at any point and continue.

    settings.json                  settings that the results depend on
    sampled/part-00001.jsonl.gz    one part: trajectories, each with its outcome
    sampled/trajectories.jsonl.gz  all parts; written at the end, as are the next two
    problems.jsonl                 one line per problem and mode
    summary.json                   all metrics

A part gets its name once it is complete. Trajectories in a part are not rolled out again. A
trajectory depends only on the policy, its problem and its number, so neither the division into
parts nor an earlier, smaller number of samples or problems changes it.
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
"""Fields of a config that change the results of an evaluation. The numbers of problems and samples
only change how many there are."""

WHOLE, PART = "trajectories.jsonl.gz", "part-[0-9]*.jsonl.gz"
PROBLEMS = "problems.jsonl"

FILLS = 4
"""Size of a part: as many trajectories as fill all slots this many times."""


class Results:
    """The results of an evaluation so far. Process 0 reads and writes them."""

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
        """The requests without a result.

        Raises ValueError if a result belongs to another problem with the same name.
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
        """Writes a part."""
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
        """The outcomes of the requests that are done, in their order."""
        return [self.outcomes[mode, r.problem.id, r.sample] for r in requests]

    def join_parts(self, mode: str) -> None:
        """Joins the parts into one file."""
        parts, whole = self._parts(mode), self.folder / mode / WHOLE
        if not parts:
            return
        temporary = whole.with_name(whole.name + ".tmp")
        with temporary.open("wb") as joined:  # concatenated gzip files are a gzip file
            for path in ([whole] if whole.exists() else []) + parts:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        temporary.replace(whole)
        # From the last on: those that are left when this is stopped are numbered without a gap.
        for path in reversed(parts):
            path.unlink()

    def write_problems(self, requests: Mapping[str, Sequence[Request]]) -> None:
        """Writes one JSON line per problem and mode, in the order of the requests."""
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
                path.unlink()  # stopped after the part had been joined

    def _read(self, path: pathlib.Path) -> bool:
        """Reads a file; returns True if it has something new."""
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
    """The results of a complete evaluation, as files hold them."""

    outcomes: dict[str, list[Outcome]]  # outcomes by mode
    texts: dict[str, tuple[str, str]]  # problem id → question and answer


def read_problems(folder: pathlib.Path) -> Written:
    """Reads the file of `Results.write_problems`. Raises ValueError for any other content."""
    path, number = folder / PROBLEMS, 0
    results = Written(outcomes={}, texts={})
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                number += 1
                line = json.loads(text)
                id, family = line["problem"], line["family"]
                results.texts[id] = line["question"], line["answer"]
                outcomes = results.outcomes.setdefault(line["mode"], [])
                outcomes += [Outcome(problem=id, family=family, **s) for s in line["samples"]]
    except OSError as error:
        raise ValueError(f"cannot read the results of an evaluation from {path}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}, line {number}: expected a problem with its samples, as `launch.evaluate`"
            f" writes it; {type(error).__name__}: {error}"
        ) from None
    return results


def parts(requests: Sequence[Request], slots: int) -> Iterator[list[Request]]:
    """Divides the requests into parts of whole problems."""
    part: list[Request] = []
    for _, group in itertools.groupby(requests, key=lambda request: request.problem.id):
        part += group
        if len(part) >= FILLS * slots * jax.process_count():
            yield part
            part = []
    if part:
        yield part


def settings(config: RunConfig, checkpoint: pathlib.Path, params: Params) -> dict[str, Any]:
    """The settings that the results of an evaluation depend on."""
    fields = dataclasses.asdict(config)
    return {
        "checkpoint": str(checkpoint),
        "parameters": digest(params),
        "evaluation": {"temperature": config.evaluation.temperature},
        **{name: fields[name] for name in SETTINGS},
    }


def digest(params: Params) -> str:
    """A short digest of the parameters, which does not depend on their placement."""

    def mixed(leaf: jax.Array) -> jax.Array:
        """The sum, modulo 2³², of each entry's bits times a number that belongs to its position."""
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
    """Names of the settings that differ, such as `rollout.context`."""
    if isinstance(saved, dict) and isinstance(current, dict):
        for name in saved.keys() | current.keys():
            path = f"{prefix}.{name}" if prefix else name
            yield from _changed(saved.get(name), current.get(name), path)
    elif saved != current:
        yield prefix
