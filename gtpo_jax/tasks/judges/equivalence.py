"""Whether two mathematical answers are the same: `docs/verifiers.md` says what that means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gtpo_jax.tasks.judges import leaves, notation, printed, spelling
from gtpo_jax.tasks.judges.structure import (
    Equation,
    Group,
    Inequality,
    Items,
    Leaf,
    Node,
    Union,
    Unreadable,
    read,
)

LONGEST = 2000
"""Characters of an answer; a longer one is wrong."""
MOST = 100
"""Parts of a list."""


def judge(record: dict[str, Any]) -> str:
    """`right`, `wrong`, or `unverifiable` when the expected answer itself cannot be read."""
    expected, given = record["expected"].strip(), record["given"].strip()
    if not expected or len(expected) > LONGEST:
        return "unverifiable"
    if len(given) > LONGEST:
        return "wrong"
    cleaned = notation.clean(expected)
    answer = printed.as_expected(notation.clean(given), cleaned)
    if expected == given or _tight(cleaned) == _tight(answer):
        return "right"
    if leaves.sentence(cleaned) == leaves.sentence(answer) != "":
        return "right"
    try:
        target = read(cleaned)
    except Unreadable:
        return "unverifiable"
    if not all(map(_is_known, _leaves(target))):
        return "unverifiable"
    if spelling.operations(answer) - spelling.operations(cleaned):
        return "wrong"
    try:
        node = read(answer)
    except Unreadable:
        return "wrong"
    return "right" if _same(target, node, record["tolerance"]) else "wrong"


def _tight(text: str) -> str:
    """Without the spaces that say nothing: `3 1/2` and `12, 345` keep theirs."""
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", text)
    return re.sub(r" ?([^\w\s,]|_) ?|(,) (?!\d)", r"\1\2", text)


def _is_known(leaf: Leaf) -> bool:
    found = leaves.value(leaf)
    return found is not None and leaves.is_clear(found)


def _leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Inequality):
        yield from (Leaf(node.left), Leaf(node.right))
    else:
        for part in node.values if isinstance(node, Equation) else node.items:
            yield from _leaves(part)


def _same(expected: Node, given: Node, tolerance: float) -> bool:
    if isinstance(given, Equation):
        if isinstance(expected, Equation):
            return _same_equation(expected, given, tolerance)
        # `4 = 5` is no answer 5, `3 + 2 = 5` and `x = 5` are.
        return bool(given.values) and all(_same(expected, v, tolerance) for v in given.values)
    if isinstance(expected, Equation):
        stated = _stated(expected, tolerance)
        return stated is not None and _same(stated, given, tolerance)
    expected, given = _single(expected), _single(given)
    if isinstance(expected, Items) and isinstance(given, Group):
        given = _printed_list(given)
    if isinstance(expected, Leaf) and isinstance(given, Leaf):
        return leaves.same(expected, given, tolerance)
    if isinstance(expected, Group) and isinstance(given, Group):
        return (
            (expected.opening, expected.closing) == (given.opening, given.closing)
            and (not expected.name or not given.name or expected.name == given.name)
            and len(expected.items) == len(given.items)
            and all(
                _same(*pair, tolerance) for pair in zip(expected.items, given.items, strict=True)
            )
        )
    if isinstance(expected, Inequality) and isinstance(given, Inequality):
        sides = [(node.left, node.right) for node in (expected, given)]
        signed = expected.sign != "\\ne"
        return expected.sign == given.sign and _proportional(*sides, signed=signed)
    if isinstance(expected, Items) and isinstance(given, Items):
        return _matched(expected.items, given.items, tolerance)
    if isinstance(expected, Union) and isinstance(given, Union):
        return _matched(expected.items, given.items, tolerance)
    return False


def _stated(equation: Equation, tolerance: float) -> Node | None:
    """What an equation says that something is: 5 in `x = 5` and `2 + 3 = 5`, not in `x + y = 5`."""
    if not equation.values:  # `f(x) = x`: two names
        return Leaf(equation.parts[-1])
    *others, last = equation.values
    known = equation.names or all(_same(last, other, tolerance) for other in others)
    return last if known else None


def _printed_list(group: Group) -> Node:
    """`[1, 2]` as a list, which is how Python prints one; elsewhere it is an interval."""
    is_list = (group.opening, group.closing) == ("[", "]") and not group.name
    return Items(group.items) if is_list else group


def _single(node: Node) -> Node:
    return node.items[0] if isinstance(node, Items) and len(node.items) == 1 else node


def _matched(expected: Sequence[Node], given: Sequence[Node], tolerance: float) -> bool:
    """Whether the parts of two lists are the same, in whatever order."""
    if len(expected) != len(given) or len(given) > MOST:
        return False
    left = list(given)
    for node in expected:
        at = next((i for i, other in enumerate(left) if _same(node, other, tolerance)), None)
        if at is None:
            return False
        del left[at]
    return True


def _same_equation(expected: Equation, given: Equation, tolerance: float) -> bool:
    if expected.names and expected.names == given.names and expected.values and given.values:
        return all(_same(expected.values[-1], node, tolerance) for node in given.values)
    sides = [equation.parts for equation in (expected, given)]
    return all(len(parts) == 2 for parts in sides) and _proportional(*sides, signed=False)


def _proportional(expected: Sequence[str], given: Sequence[str], *, signed: bool) -> bool:
    """Whether the differences of both sides are a constant multiple of each other, not 0.

    `signed`: a positive one. So `y = 2x + 1` is `2x − y + 1 = 0`, and `x² = 4` is not `x = 2`.
    """
    differences = []
    for left, right in (expected, given):
        pair = leaves.as_expression(Leaf(left)), leaves.as_expression(Leaf(right))
        if pair[0] is None or pair[1] is None:
            return False
        differences.append(pair[0] - pair[1])
    if differences[0].free_symbols != differences[1].free_symbols:
        return False
    for left, right in leaves.values(*differences):
        if left != 0 and right != 0:
            factor = leaves.rational(right / left)
            scaled = differences[0] * factor
            return (factor > 0 or not signed) and leaves.same_expression(scaled, differences[1])
    return False
