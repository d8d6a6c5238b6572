"""Parts of an answer, as `structure` reads them and `equivalence` compares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeGuard


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A number, an expression or a word, and its unit."""

    text: str
    unit: str = ""  # after a `#`, what is counted, or a base: nothing that can be added
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
    name: str = ""  # of the variable, when an inequality said it


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
    """A set, its first item, without the points or the set that is the second."""

    items: tuple[Node, Node]


@dataclasses.dataclass(frozen=True)
class Equation:
    """`x = 5`, `3 + 2 = 5`: names of what is found, and what is said of them."""

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
    """Whether a node can be nothing but a set of real numbers: `(1, 2)` can be a pair."""
    if isinstance(node, RealSet):
        return True
    if not isinstance(node, Group) or not is_interval(node):
        return False
    infinite = any(isinstance(end, Leaf) and "\\infty" in end.text for end in node.items)
    return bool(node.name) or infinite or (node.opening, node.closing) != ("(", ")")


def names_of(node: Node) -> set[str]:
    """The variables that sets, intervals or equations say something about, where it is said."""
    if isinstance(node, Group):
        return {node.name} - {""}
    if isinstance(node, Equation):
        return {*node.names}
    return set().union(*map(names_of, node.items)) if isinstance(node, RealSet) else set()


def named(node: Node, name: str) -> Node:
    """The same set, said of another variable, or of none."""
    if isinstance(node, Group) and is_interval(node):
        return dataclasses.replace(node, name=name)
    if isinstance(node, RealSet):
        return dataclasses.replace(node, items=tuple(named(item, name) for item in node.items))
    return node


def parts(node: Node) -> tuple[Node, ...]:
    """The answers that a list consists of; of anything else, itself."""
    return node.items if isinstance(node, Items) else (node,)


def assigned(items: Sequence[Node]) -> dict[str, Node] | None:
    """The value of each name, by equations of different names; None when items are others."""
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
