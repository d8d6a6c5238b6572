"""Reads problems from files and data sets, maps them, and separates training from evaluation.

Everything is read and checked before a run begins. Records that are left out are counted.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping as FieldNames
from collections.abc import Sequence

from gtpo_jax.tasks.mappings import MAPPINGS, LeftOut, Mapping, Record
from gtpo_jax.tasks.rows import open_rows
from gtpo_jax.tasks.stream import Entry


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Entries of one source, and notes about the records that were left out."""

    entries: list[Entry]
    notes: tuple[str, ...] = ()


def read_problems(
    source: str, mapping: Mapping = MAPPINGS["plain"], *, fields: FieldNames[str, str] | None = None
) -> Loaded:
    """All problems of a source (see `rows.open_rows`).

    `fields`: field of the mapping → its name in this source. Raises `ValueError`, with the place
    and the reason, for a record that is not as expected.
    """
    rows = open_rows(str(source))
    entries: list[Entry] = []
    places: dict[str, str] = {}
    left_out: collections.Counter[str] = collections.Counter()
    for place, record in rows.rows:
        where = f"{source}, {place}"
        try:
            entry = mapping.convert(_renamed(record, fields or {}))
        except ValueError as error:
            raise ValueError(f"{where}: {error}; expected {mapping.expects}") from None
        if isinstance(entry, LeftOut):
            left_out[entry.reason] += 1
            continue
        entry = _filled(entry, f"{rows.label}-{place.split()[-1]}", rows.label)
        first = places.setdefault(entry.problem.id, place)
        if first == place:
            entries.append(entry)
        elif mapping.repeats:
            left_out["that repeat an earlier one"] += 1
        else:
            raise ValueError(
                f"{where}: the id {entry.problem.id!r} is that of {first}; ids must differ"
            )
    notes = tuple(f"{source}: {count:,} left out {why}" for why, count in left_out.items())
    if not entries:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise ValueError(f"{source} holds no problem{reasons}; expected {mapping.expects}")
    return Loaded(entries, notes)


def join(parts: Sequence[Sequence[Entry]]) -> list[Entry]:
    """The entries of several sources; shared ids are made unique by the number of the source."""
    ids = [entry.problem.id for part in parts for entry in part]
    if len(set(ids)) == len(ids):
        return [entry for part in parts for entry in part]
    return [
        _with_id(entry, f"{number}/{entry.problem.id}")
        for number, part in enumerate(parts, 1)
        for entry in part
    ]


def keep_apart(
    train: Sequence[Entry], evaluation: Sequence[Entry], *, drop: bool = False
) -> Loaded:
    """The training entries whose questions are not evaluation questions.

    Questions are compared ignoring case and white space. Shared ones are dropped from training
    with `drop`; otherwise a `ValueError` names the first.
    """
    held_out = {_normalized(entry): entry.problem for entry in evaluation}
    shared = [entry for entry in train if _normalized(entry) in held_out]
    if not shared:
        return Loaded(list(train))
    if not drop:
        first = shared[0].problem
        question = " ".join(first.question.split())
        raise ValueError(
            f"{len(shared):,} of {len(train):,} training problems are also evaluated on; the first"
            f" is {first.id!r}, there {held_out[_normalized(shared[0])].id!r}: {question[:120]!r};"
            " give other files, or --task.drop-overlap leaves them out of training"
        )
    separate = [entry for entry in train if _normalized(entry) not in held_out]
    if not separate:
        raise ValueError("every training problem is also evaluated on; give other files")
    return Loaded(separate, (f"{len(shared):,} training problems left out that are evaluated on",))


def _normalized(entry: Entry) -> str:
    return " ".join(entry.problem.question.split()).casefold()


def _renamed(record: Record, fields: FieldNames[str, str]) -> Record:
    """The record with its fields renamed to those of the mapping."""
    for name, source in fields.items():
        if source not in record:
            raise ValueError(f"there is no field `{source}` to be read as `{name}`")
    return {**record, **{name: record[source] for name, source in fields.items()}}


def _filled(entry: Entry, identity: str, family: str) -> Entry:
    problem = entry.problem
    if problem.id and problem.family:
        return entry
    problem = dataclasses.replace(
        problem, id=problem.id or identity, family=problem.family or family
    )
    return Entry(problem, entry.expression)


def _with_id(entry: Entry, identity: str) -> Entry:
    return Entry(dataclasses.replace(entry.problem, id=identity), entry.expression)
