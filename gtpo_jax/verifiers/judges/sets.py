"""Sets of real numbers: intervals, inequalities, and sets composed of them.

The ends of two sets divide the line into points and gaps. The sets are the same if they hold the
same points and gaps, however they were written: `x > 0 and x < 5` is `(0, 5)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from gtpo_jax.verifiers.judges import leaves
from gtpo_jax.verifiers.judges.nodes import (
    Equation,
    Group,
    Intersection,
    Items,
    Leaf,
    Node,
    Union,
    Without,
    is_interval,
    names_of,
)

_INFINITE = {"\\infty": math.inf, "+\\infty": math.inf, "-\\infty": -math.inf}

_Places = Mapping[Leaf, int]
"""End → its odd number, in order. The gaps between the ends have the even numbers."""


def same_set(expected: Node, given: Node, tolerance: float) -> bool | None:
    """True if two nodes are the same set; None if one is not a set or has an end that is no number.

    If the expected answer has conditions that exclude each other, `x < -1, x > 1`, they are read as
    alternatives; elsewhere nothing satisfies them.
    """
    names = names_of(expected), names_of(given)
    if max(map(len, names)) > 1:
        return None  # `x > 0 or y > 0` is no set of numbers
    if len(names[0] | names[1]) > 1:
        return False
    found = _places([*_ends(expected)], [*_ends(given)], tolerance)
    if found is None or not all(_is_ordered(node, found) for node in (expected, given)):
        return None
    line = range(2 * len(found) + 1)
    kinds = [expected, given]
    for at, node in enumerate(kinds):
        if isinstance(node, Intersection) and not any(_holds(node, p, found) for p in line):
            kinds[at] = Union(node.items)
            continue
        break
    return all(_holds(kinds[0], p, found) == _holds(kinds[1], p, found) for p in line)


def _ends(node: Node) -> Iterator[Leaf | None]:
    """The numbers that describe a set; None for anything else in it."""
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Equation):
        yield from _ends(node.values[0]) if len(node.values) == 1 and node.names else (None,)
    elif isinstance(node, Union | Intersection | Without | Items) or is_interval(node):
        for item in node.items:
            listed = isinstance(node, Items) and not isinstance(item, Leaf | Equation)
            yield from (None,) if listed else _ends(item)
    else:
        yield None


def _places(
    expected: list[Leaf | None], given: list[Leaf | None], tolerance: float
) -> _Places | None:
    """The place of each end; equal ends have the same place."""
    marks: list[tuple[Fraction | float, Leaf]] = []
    same: dict[Leaf, Leaf] = {}
    for end in (*expected, *given):
        if end is None:
            return None
        mark = next((mark for _, mark in marks if leaves.same(mark, end, tolerance)), None)
        if mark is None:
            position = _INFINITE.get(end.text.replace(" ", ""), leaves.real_value(end))
            if position is None:
                return None
            marks.append((position, end))
        same[end] = mark or end
    ranks = {mark: 2 * rank + 1 for rank, (_, mark) in enumerate(sorted(marks, key=_position))}
    return {end: ranks[mark] for end, mark in same.items()}


def _position(mark: tuple[Fraction | float, Leaf]) -> Fraction | float:
    return mark[0]


def _is_ordered(node: Node, places: _Places) -> bool:
    """True if the intervals of a set begin before they end."""
    if isinstance(node, Group):
        low, high = node.items
        return _place(low, places) < _place(high, places)
    if isinstance(node, Union | Intersection | Without):
        return all(_is_ordered(item, places) for item in node.items)
    return True


def _holds(node: Node, place: int, places: _Places) -> bool:
    """True if a set holds a point or a gap."""
    if isinstance(node, Group):
        low, high = (_place(end, places) for end in node.items)
        at_end = (place == low and node.opening == "[") or (place == high and node.closing == "]")
        return low < place < high or at_end
    if isinstance(node, Equation):
        return _holds(node.values[0], place, places)
    if isinstance(node, Leaf):
        return _place(node, places) == place
    if isinstance(node, Without):
        return _holds(node.items[0], place, places) and not _holds(node.items[1], place, places)
    some = any if isinstance(node, Union | Items) else all
    return some(_holds(item, place, places) for item in getattr(node, "items", ()))


def _place(end: Node, places: _Places) -> int:
    assert isinstance(end, Leaf)  # as `_ends` ensures
    return places[end]
