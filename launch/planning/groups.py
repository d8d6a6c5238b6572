"""The devices that take part in a collective."""

from __future__ import annotations

import math
import re

import numpy as np

LISTED = re.compile(r"replica_groups=\{\{([\d,{} ]*)\}\}")
IOTA = re.compile(r"replica_groups=\[(\d+),\d+\]<=(\S+)")
NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\((\S+)\))?\s*\{([^}]*)\}")
ORDER = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


def replica_groups(attributes: str, devices: int) -> list[tuple[int, ...]]:
    """The groups of a collective over `devices`, as positions in the mesh of the program.

    Three notations are in use: `{{0,1},{2,3}}`; `[2,2]<=[4]`, perhaps transposed by `T(1,0)`; and
    `mesh['a'=2,'b'=2] {'b'}`, perhaps with its devices in another order, and with a part of an axis
    in the place of an axis: `'a':(2)4` is the middle 4 of 2 × 4 × the rest. Raises ValueError for
    any other notation.
    """
    listed = LISTED.search(attributes)
    if listed:
        parts = re.split(r"\}\s*,\s*\{", listed.group(1))
        return [tuple(int(one) for one in part.split(",")) for part in parts]
    iota = IOTA.search(attributes)
    if iota:
        return _rows(_order(iota.group(2)).reshape(int(iota.group(1)), -1))
    named = NAMED.search(attributes)
    if named:
        return _named(*named.groups())
    if "replica_groups={}" in attributes or "replica_groups" not in attributes:
        return [tuple(range(devices))]
    text = attributes[attributes.index("replica_groups") :][:80]
    raise ValueError(f"the groups of a collective are written in an unknown way: {text}")


def _named(mesh: str, order: str | None, wanted: str) -> list[tuple[int, ...]]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = [(name, int(pre or 1), int(size or 0)) for name, pre, size in AXIS.findall(wanted)]
    shape: list[int] = []
    inner: dict[tuple[str, int, int], int] = {}
    for axis, whole in sizes.items():
        done = 1  # size of the parts of the axis so far
        for part in sorted((one for one in chosen if one[0] == axis), key=lambda one: one[1]):
            size = part[2] or whole
            shape += [part[1] // done, size]
            inner[part] = len(shape) - 1
            done = part[1] * size
        shape.append(whole // done)
    places = np.arange(math.prod(sizes.values())) if order is None else _order(order)
    last = [inner[one] for one in chosen]
    first = [axis for axis in range(len(shape)) if axis not in last]
    width = math.prod(shape[axis] for axis in last)
    return _rows(places.reshape(shape).transpose([*first, *last]).reshape(-1, width))


def _order(text: str) -> np.ndarray:
    """Positions in the order that `[2,4]T(1,0)` or `0,2,1,3` describes."""
    match = ORDER.match(text)
    if match is None:
        return np.array([int(one) for one in text.split(",")])
    dims = [int(size) for size in match.group(1).split(",")]
    places = np.arange(math.prod(dims)).reshape(dims)
    if match.group(2):
        places = places.transpose([int(axis) for axis in match.group(2).split(",")])
    return places.reshape(-1)


def _rows(places: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in places.tolist()]
