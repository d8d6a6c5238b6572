"""The contents of a run's folder for a report: trajectories, metrics, settings, evaluations."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from gtpo_jax.report.evaluations import HeldOut
from gtpo_jax.results.metrics import read_metrics
from gtpo_jax.results.records import read_records, saved_records
from launch.run import evaluation_files

PHASES = ("train", "sft")
"""Phases whose metrics are drawn."""

POLICIES = ("import", "sft", "train")
"""Phases in the order in which a policy goes through them."""

ORIGIN = {
    "trajectories": "training keeps them in train/trajectories, an evaluation in evaluation",
    "metrics of training": "`python -m launch.train` writes them to train/metrics.jsonl",
}
"""The origin of the files that a report needs."""

Files = dict[str, list[pathlib.Path]]
"""Files of trajectories by source: `train`, or the folder of an evaluation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """Trajectories by source, and their total number."""

    sources: dict[str, list[dict]]
    taken: int
    all: int


def find_runs(
    folders: Sequence[pathlib.Path], has: Callable[[pathlib.Path], object], what: str
) -> list[pathlib.Path]:
    """The folders that contain something; a folder without it is replaced by its subfolders that
    have it.

    So a folder of `launch.compare` stands for its runs. Raises `ValueError`, with the word `what`
    for the thing, if neither a folder nor its subfolders have it, and if a run is named twice.
    """
    runs: list[pathlib.Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"{folder} is not a folder; expected the folder of a run, such as runs/mine"
            )
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        matching = [folder] if has(folder) else [path for path in inside if has(path)]
        if not matching:
            raise ValueError(f"no {what} in {folder}, nor in a folder in it; {ORIGIN[what]}")
        runs += matching
    places = [run.resolve() for run in runs]
    for i, run in enumerate(runs):
        if places[i] in places[:i]:
            raise ValueError(f"the run {run} is named twice")
    return runs


def names_of(runs: Sequence[pathlib.Path]) -> list[str]:
    """A name for each run: its folder, with as many parents as are needed to distinguish it."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is named twice")


def metrics_of(run: pathlib.Path) -> dict[str, list[dict]]:
    """The metrics of each phase that has some."""
    phases = {phase: read_metrics(run / phase / "metrics.jsonl") for phase in PHASES}
    return {phase: metrics for phase, metrics in phases.items() if metrics}


def trained(run: pathlib.Path) -> bool:
    """True if a run has metrics of training."""
    return "train" in metrics_of(run)


def settings_of(run: pathlib.Path) -> dict:
    """The settings that a run was trained with. Raises `ValueError` if they cannot be read."""
    path = run / "train" / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def evaluations_of(run: pathlib.Path) -> list[HeldOut]:
    """The complete evaluations, the earliest policy first.

    Raises `ValueError` if one cannot be read.
    """
    evaluations = []
    for path in (run / "evaluation").rglob(evaluation_files.PROBLEMS):
        written = evaluation_files.read_problems(path.parent)
        name = path.parent.relative_to(run / "evaluation").as_posix()
        held_out = HeldOut(name=name, outcomes=written.outcomes, texts=written.texts)
        evaluations.append((*_policy(path.parent), name, held_out))
    return [held_out for *_, held_out in sorted(evaluations, key=lambda each: each[:3])]


def _policy(folder: pathlib.Path) -> tuple[int, int]:
    """Sort key of an evaluation: the position of the phase of its checkpoint, and the step."""
    path = folder / "settings.json"
    try:
        checkpoint = json.loads(path.read_text(encoding="utf-8"))["checkpoint"]
        phase, _, step = pathlib.PurePath(checkpoint).parts[-3:]
        return POLICIES.index(phase), int(step)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the settings of an evaluation, with its checkpoint as"
            f" PHASE/checkpoints/STEP; {type(error).__name__}: {error}"
        ) from None


def record_files(run: pathlib.Path) -> Files:
    """Files of rollouts by phase, and of evaluations by folder."""
    found: Files = {}
    for folder in sorted(run.glob("*/trajectories")):
        files = [path for _, path in saved_records(folder)]
        if files:
            found[folder.parent.name] = files
    for path in sorted((run / "evaluation").rglob("trajectories.jsonl*")):
        if path.name in ("trajectories.jsonl", "trajectories.jsonl.gz"):
            name = path.parent.relative_to(run).as_posix()
            found.setdefault(name, []).append(path)
    return found


def gather(files: Files, *, most: int, steps: Sequence[int] = ()) -> Gathered:
    """Reads trajectories: all of them, or whole groups, chosen evenly, up to `most` trajectories.

    With `steps`, only trajectories of these steps. Raises `ValueError` if there is none.
    """
    sizes: dict[tuple, int] = {}  # group → number of trajectories
    found: set[int] = set()
    for key, record in _walk(files):
        found.add(record["step"])
        if not steps or record["step"] in steps:
            sizes[key] = sizes.get(key, 0) + 1
    missing = sorted(set(steps) - found)
    if missing:
        raise ValueError(
            f"no trajectory of step {', '.join(map(str, missing))}; there are some of"
            f" {', '.join(map(str, sorted(found)))}"
        )
    chosen = choose_groups(sizes, most)
    sources: dict[str, list[dict]] = {name: [] for name in files}
    for key, record in _walk(files):
        if key in chosen:
            sources[key[0]].append(record)
    taken = sum(map(len, sources.values()))
    kept = {name: records for name, records in sources.items() if records}
    return Gathered(sources=kept, taken=taken, all=sum(sizes.values()))


def _walk(files: Files) -> Iterator[tuple[tuple, dict]]:
    """All records in order, each with its group."""
    for name, paths in files.items():
        for path in paths:
            for record in read_records(path):
                yield (name, record["step"], record["group"], record["problem"]["id"]), record


def choose_groups(sizes: Mapping[tuple, int], most: int) -> set[tuple]:
    """Groups, evenly spread over their order, with at most `most` trajectories in total.

    At least one group is chosen.
    """
    groups = sorted(sizes)
    if sum(sizes.values()) <= most:
        return set(groups)
    low, high = 1, len(groups)  # bounds of the number of groups
    while high - low > 1:
        middle = (low + high) // 2
        fits = sum(sizes[groups[i]] for i in _spread(middle, len(groups))) <= most
        low, high = (middle, high) if fits else (low, middle)
    return {groups[i] for i in _spread(low, len(groups))}


def _spread(count: int, total: int) -> list[int]:
    """`count` different numbers in [0, total), evenly spaced, including both ends."""
    return np.linspace(0, total - 1, count).round().astype(int).tolist()
