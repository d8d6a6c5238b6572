"""Beginnings that rows hold already: which row a trajectory copies from, and which row it takes.

Only trajectories of one problem share: a plan continues the trajectories of its own group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gtpo_jax.rollout.slots import Slot


class Held(NamedTuple):
    """The tokens that a row holds: those of its cache, and one more."""

    problem: str
    tokens: np.ndarray  # [n] int32


class Source(NamedTuple):
    """The beginning that a row gets from another."""

    row: int
    shared: int  # tokens, at least 1


def common(first: np.ndarray, second: np.ndarray) -> int:
    """Number of tokens that two texts begin with alike."""
    size = min(len(first), len(second))
    differs = np.flatnonzero(first[:size] != second[:size])
    return int(differs[0]) if len(differs) else size


def best(slot: Slot, held: Mapping[int, Held]) -> Source | None:
    """The row that holds most of what a trajectory begins with, the first among equals."""
    problem, tokens = slot.request.problem.id, slot.tokens()
    found = None
    for row, (owner, others) in held.items():
        shared = common(tokens, others) if owner == problem else 0
        if shared > (found.shared if found else 0):
            found = Source(row, shared)
    return found


def place(
    slots: Sequence[Slot], free: Sequence[int], held: Mapping[int, Held], later: Iterable[Slot]
) -> dict[int, Slot]:
    """A free row for each trajectory.

    One that continues another takes the row that it would copy from, unless some trajectory of
    `later` needs that row. The others take rows of no use first.
    """
    needed = {source.row for slot in later if (source := _copied(slot, held))}
    taken: dict[int, Slot] = {}
    others: list[Slot] = []
    for slot in slots:
        source = _copied(slot, held)
        if source and source.row in free and source.row not in needed and source.row not in taken:
            taken[source.row] = slot
        else:
            others.append(slot)
    rest = sorted(set(free) - set(taken), key=lambda row: (row in needed, row in held, row))
    return taken | dict(zip(rest, others, strict=False))


def _copied(slot: Slot, held: Mapping[int, Held]) -> Source | None:
    return None if slot.plain else best(slot, held)


def waves(new: Mapping[int, Slot], held: Mapping[int, Held]) -> list[dict[int, Source | None]]:
    """The order in which new rows are filled: `out[n]` maps the rows of wave n to their sources.

    Sources of wave 0 are rows as they were before it, or None; those of later waves are new rows of
    the wave before. So of equal beginnings one is computed and the others copy it. Plain
    trajectories are in wave 0 without a source: prompts have a way of their own to be shared.
    """
    order: list[dict[int, Source | None]] = [{}]
    filled: dict[int, Held] = {}
    wave_of: dict[int, int] = {}
    # Prompts come first, so that those who continue them find them.
    for row, slot in sorted(new.items(), key=lambda pair: not pair[1].plain):
        source, wave = _copied(slot, held), 0
        leader = _copied(slot, filled)
        if leader and leader.shared > (source.shared if source else 0):
            source, wave = leader, wave_of[leader.row] + 1
        wave_of[row] = wave
        if wave == len(order):
            order.append({})
        order[wave][row] = source
        filled[row] = Held(slot.request.problem.id, slot.tokens())
    return order
