"""The parts of an answer that `structure` reads and `equivalence` compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeGuard


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A number, an expression or a word, and its unit."""

    text: str
    unit: str = ""  # after `#`: a counted thing or a base, which a given answer may not add
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Items:
    """Several answers: `1, 2`, `{1, 2}`, `1 or 2`, `±1`. Their order says nothing."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """A tuple or an interval, `(1, 2]`, or the parts of a ratio. Their order and brackets count."""

    opening: str
    items: tuple[Node, ...]
    closing: str
    name: str = ""  # of the variable, if an inequality named it


@dataclasses.dataclass(frozen=True)
class Union:
    """A union of sets."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Intersection:
    """The common part of several sets, or of inequalities of one variable."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Without:
    """The set that is the first item, without the points or the set that is the second."""

    items: tuple[Node, Node]


@dataclasses.dataclass(frozen=True)
class Equation:
    """`x = 5`, `3 + 2 = 5`: the names, and the values that they are given."""

    parts: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Inequality:
    """`left < right`, `left ≤ right` or `left ≠ right`, of expressions."""

    sign: str
    left: str
    right: str


@dataclasses.dataclass(frozen=True)
class Chain:
    """`a < b = c ≤ d`, from the smallest to the largest; what is equal stands on one level."""

    levels: tuple[tuple[str, ...], ...]
    signs: tuple[str, ...]


RealSet = Union | Intersection | Without
Node = Leaf | Items | Group | RealSet | Equation | Inequality | Chain

REALS = Group("(", (Leaf("-\\infty"), Leaf("\\infty")), ")")


def is_interval(node: Node) -> TypeGuard[Group]:
    return (
        isinstance(node, Group)
        and node.opening in ("(", "[")
        and node.closing in (")", "]")
        and len(node.items) == 2
    )


def is_set(node: Node) -> bool:
    """True if a node can only be a set of real numbers; `(1, 2)` could be a pair."""
    if isinstance(node, RealSet):
        return True
    if not isinstance(node, Group) or not is_interval(node):
        return False
    infinite = any(isinstance(end, Leaf) and "\\infty" in end.text for end in node.items)
    return bool(node.name) or infinite or (node.opening, node.closing) != ("(", ")")


def names_of(node: Node) -> set[str]:
    """The variables that sets, intervals or equations name."""
    if isinstance(node, Group):
        return {node.name} - {""}
    if isinstance(node, Equation):
        return {*node.names}
    return set().union(*map(names_of, node.items)) if isinstance(node, RealSet) else set()


def named(node: Node, name: str) -> Node:
    """The same set with another variable, or with none."""
    if isinstance(node, Group) and is_interval(node):
        return dataclasses.replace(node, name=name)
    if isinstance(node, RealSet):
        return dataclasses.replace(node, items=tuple(named(item, name) for item in node.items))
    return node


def parts(node: Node) -> tuple[Node, ...]:
    """The answers that a list consists of; of anything else, itself."""
    return node.items if isinstance(node, Items) else (node,)


def assigned(items: Sequence[Node]) -> dict[str, Node] | None:
    """The value of each name, if all items are equations of different names; else None."""
    found: dict[str, Node] = {}
    for item in items:
        if not isinstance(item, Equation) or len(item.values) != 1 or not item.names:
            return None
        said = dict.fromkeys(item.names, item.values[0])
        names, value = item.names[0].strip("()").replace(" ", "").split(","), item.values[0]
        if len(names) > 1 and isinstance(value, Group) and len(names) == len(value.items):
            said = dict(zip(names, value.items, strict=True))  # `(x, y) = (1, 2)`
        if found.keys() & said.keys():
            return None
        found.update(said)
    return found
