"""Bundles trajectory records as the data of a page: a light index, and bodies loaded on demand.

The index holds a few numbers of every trajectory, so that a page can list and filter thousands at
once. Their texts are in chunks of whole groups, each compressed by itself.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

CHUNK_BYTES = 1 << 18
"""Target size of a chunk before compression; opening a group decompresses its whole chunk."""

GroupKey = tuple[int, int, int, str]
"""Key of a group of trajectories: source, step, group, problem."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """The trajectories of a page."""

    index: dict
    chunks: list[list[dict]]  # bodies of trajectories, in the order of the index


class _Table:
    """Numbers distinct values in the order of their first occurrence."""

    def __init__(self):
        self.numbers: dict[object, int] = {}

    def __call__(self, value: object) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    def values(self) -> list:
        return list(self.numbers)


def bundle(sources: Mapping[str, Sequence[dict]]) -> Bundle:
    """Index and chunks of the records of named sources, such as `train`.

    Trajectories are sorted by source, step and group.
    """
    names = list(sources)
    ordered = sorted(
        ((source, record) for source, name in enumerate(names) for record in sources[name]),
        key=lambda pair: (*group_key(*pair), pair[1]["sample"]),
    )
    families, stops, problems = _Table(), _Table(), _Table()
    groups, trajectories = [], []
    chunks: list[list[dict]] = []
    room = 0
    for key, members in itertools.groupby(ordered, key=lambda pair: group_key(*pair)):
        records = [record for _, record in members]
        problem = records[0]["problem"]
        row = (problem["id"], problem["question"], problem["answer"], families(problem["family"]))
        bodies = [_body(record) for record in records]
        if room <= 0:
            chunks.append([])
            room = CHUNK_BYTES
        groups.append((*key[:3], problems(row), len(trajectories), len(records), len(chunks) - 1))
        chunks[-1] += bodies
        room -= sum(len(json.dumps(body)) for body in bodies)
        trajectories += [_row(record, stops) for record in records]
    turns = [turn for _, record in ordered for turn in record["turns"]]
    names_of_credit = dict.fromkeys(name for turn in turns for name in turn["credit"])
    index = {
        "sources": names,
        "families": families.values(),
        "stops": stops.values(),
        "credit": list(names_of_credit),
        "problems": _columns(("id", "question", "answer", "family"), problems.values()),
        "groups": _columns(
            ("source", "step", "group", "problem", "first", "count", "chunk"), groups
        ),
        "trajectories": _columns(COLUMNS, trajectories),
        "scales": {
            "advantage": scale(
                [abs(turn["credit"]["advantage"] or 0) for turn in turns if _has_advantage(turn)]
            ),
            "entropy": scale([value or 0 for turn in turns for value in turn["entropies"]]),
        },
    }
    return Bundle(index=index, chunks=chunks)


def group_key(source: int, record: Mapping) -> GroupKey:
    """The key of the group of a record of source number `source`."""
    return source, record["step"], record["group"], record["problem"]["id"]


COLUMNS = ("sample", "verdict", "stop", "included", "violations", "turns", "tokens")
COLUMNS += ("calls", "failed", "reward")


def _row(record: Mapping, stops: Callable[[object], int]) -> tuple:
    turns = record["turns"]
    results = [result for turn in turns for result in turn["results"]]
    rewards = [turn["credit"].get("reward") for turn in turns]
    known = bool(rewards) and all(reward is not None for reward in rewards)
    return (
        record["sample"],
        record["verdict"],
        stops(record["stop_reason"]),
        int(record["included"]),
        sum(turn["violation"] is not None for turn in turns),
        len(turns),
        sum(len(turn["pieces"]) for turn in turns),
        len(results),
        sum(result["status"] != "ok" for result in results),
        round(sum(rewards), 6) if known else None,
    )


def _body(record: Mapping) -> dict:
    # Files of earlier versions have no facts.
    body = {name: record[name] for name in ("prompt", "answer", "turns")}
    return {**body, "facts": record.get("facts", {})}


def _has_advantage(turn: Mapping) -> bool:
    return "advantage" in turn["credit"]


def _columns(names: Sequence[str], rows: Sequence[Sequence]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def scale(sizes: Sequence[float]) -> float | None:
    """The magnitude that gets the full tint: the 98th percentile. None without values."""
    if not sizes:
        return None
    size = float(np.quantile(np.asarray(sizes), 0.98)) or max(sizes)
    return round(size, 4) or 1.0


def pack(value: object) -> str:
    """A JSON value, compressed and base64-encoded, so that no text in it can form a tag.

    Equal values give equal text. Raises `ValueError` for a number that is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")
