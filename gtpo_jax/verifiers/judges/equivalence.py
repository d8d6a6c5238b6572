"""Decides if two mathematical answers are the same; `docs/verifiers.md` defines that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import sympy

from gtpo_jax.verifiers.judges import agreement, leaves, notation, parsing, printed, sets, spelling
from gtpo_jax.verifiers.judges.budget import Spent, processor_seconds
from gtpo_jax.verifiers.judges.nodes import (
    Chain,
    Equation,
    Group,
    Inequality,
    Intersection,
    Items,
    Leaf,
    Node,
    Union,
    Without,
    assigned,
    is_set,
    parts,
)
from gtpo_jax.verifiers.judges.structure import Unreadable, is_variable, read

LONGEST = 2000
"""Characters of an answer; a longer one is wrong."""
MOST = 100
"""Parts of a list."""


READING_SECONDS = 0.25
COMPARING_SECONDS = 0.25
SECONDS_A_CHARACTER = 0.001
"""Processor time for reading an answer, for comparing two, and for characters beyond `SHORT`."""
SHORT = 200


prepare, rest = parsing.prepare, parsing.rest
"""A worker calls these before its first answer and between answers, at the cost of none."""


def judge(record: dict[str, Any], known: Callable[[], None]) -> str:
    """`right`, `wrong`, or `unverifiable` if the expected answer itself cannot be read.

    This calls `known` once it has read the expected answer. A failure after that is the fault of
    the given answer.
    """
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
    target = _named_by_its_side(_read_within(cleaned))
    if target is None or not all(map(_is_known, _leaves(target))):
        return "unverifiable"
    known()
    if spelling.operations(answer) - spelling.operations(cleaned):
        return "wrong"
    node = _read_within(answer)
    if node is None:
        return "wrong"
    try:
        with processor_seconds(_seconds(COMPARING_SECONDS, answer)):
            return "right" if _same(target, node, record["tolerance"]) else "wrong"
    except (Spent, RecursionError):
        return "wrong"


def _named_by_its_side(target: Node | None) -> Node | None:
    """An equation whose left side cannot be read, with that as a name: `\\mathcal{L}(f) = 1/s`."""
    if not isinstance(target, Equation) or target.names or len(target.values) != 2:
        return target
    side, value = target.values
    if all(map(_is_known, _leaves(side))) or not all(map(_is_known, _leaves(value))):
        return target
    return Equation(target.parts, (target.parts[0],), (value,))


def _seconds(least: float, text: str) -> float:
    return least + SECONDS_A_CHARACTER * max(len(text) - SHORT, 0)


def _read_within(text: str) -> Node | None:
    """The structure of a text; None if it cannot be read in time. Values are cached for later."""
    try:
        with processor_seconds(_seconds(READING_SECONDS, text)):
            node = read(text)
            for leaf in _leaves(node):
                leaves.value(leaf)
            return node
    except (Spent, Unreadable, RecursionError):
        return None


def _tight(text: str) -> str:
    """The text without meaningless spaces; `3 1/2` and `12, 345` keep theirs."""
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
    elif isinstance(node, Chain):
        yield from (Leaf(part) for level in node.levels for part in level)
    else:
        for part in node.values if isinstance(node, Equation) else node.items:
            yield from _leaves(part)


def _same(expected: Node, given: Node, tolerance: float) -> bool:
    if isinstance(expected, Items) and isinstance(given, Group):
        given = _printed_list(given)
    for decide in (_same_named, _same_set, _same_equations):
        decided = decide(expected, given, tolerance)
        if decided is not None:
            return decided
    expected, given = _single(expected), _single(given)
    if isinstance(expected, Leaf) and isinstance(given, Leaf):
        return leaves.same(expected, given, tolerance)
    if isinstance(expected, Group) or isinstance(given, Group):
        expected, given = _bounds(expected), _bounds(given)
    if isinstance(expected, Group) and isinstance(given, Group):
        return _same_group(expected, given, tolerance)
    if isinstance(expected, Inequality) and isinstance(given, Inequality):
        return _same_inequality(expected, given)
    if isinstance(expected, Chain) and isinstance(given, Chain):
        levels = zip(expected.levels, given.levels, strict=False)
        return expected.signs == given.signs and all(_same_sides(*pair) for pair in levels)
    if isinstance(expected, Without) and isinstance(given, Without):
        return _in_order(expected.items, given.items, tolerance)
    for kind in (Items, Union, Intersection):
        if isinstance(expected, kind) and isinstance(given, kind):
            return _matched(expected.items, given.items, tolerance)
    return False


def _stated(equation: Equation, tolerance: float) -> Node | None:
    """The value that an equation states: 5 in `x = 5` and `2 + 3 = 5`, none in `x + y = 5`."""
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


def _in_order(expected: Sequence[Node], given: Sequence[Node], tolerance: float) -> bool:
    return len(expected) == len(given) and all(
        _same(*pair, tolerance) for pair in zip(expected, given, strict=True)
    )


def _matched(expected: Sequence[Node], given: Sequence[Node], tolerance: float) -> bool:
    """True if the parts of two lists are the same, in any order."""
    if len(expected) != len(given) or len(given) > MOST:
        return False
    left = list(given)
    for node in expected:
        at = next((i for i, other in enumerate(left) if _same(node, other, tolerance)), None)
        if at is None:
            return False
        del left[at]
    return True


def _same_named(expected: Node, given: Node, tolerance: float) -> bool | None:
    """Values of several names: by name, or, where names are left out, in the order of the names.

    None when neither side has any.
    """
    asked, said = assigned(parts(expected)) or {}, assigned(parts(given)) or {}
    if asked and said and max(len(asked), len(said)) > 1:
        return asked.keys() == said.keys() and all(
            _same(value, said[name], tolerance) for name, value in asked.items()
        )
    if len(asked) > 1 and (isinstance(given, Items) or _is_tuple(given)):
        answers = parts(given) if isinstance(given, Items) else given.items
        named = zip(asked, answers, strict=False)
        misnamed = any(isinstance(a, Equation) and a.names not in ((), (n,)) for n, a in named)
        return not misnamed and _in_order([*asked.values()], answers, tolerance)
    if len(said) > 1 and _is_tuple(expected):
        return _in_order(expected.items, [said[name] for name in sorted(said)], tolerance)
    return None


def _is_tuple(node: Node) -> TypeGuard[Group]:
    """A tuple, or a list as Python prints it."""
    brackets = (("(", ")"), ("[", "]"))
    return isinstance(node, Group) and (node.opening, node.closing) in brackets and not node.name


def _same_set(expected: Node, given: Node, tolerance: float) -> bool | None:
    if not is_set(expected) and not is_set(given):
        return None
    return sets.same_set(expected, given, tolerance)


def _bounds(node: Node) -> Node:
    """The interval between two expressions that `a < x ≤ b` describes; all else as it is."""
    if not isinstance(node, Chain) or [len(level) for level in node.levels] != [1, 1, 1]:
        return node
    (low,), (middle,), (high,) = node.levels
    if not is_variable(middle):
        return node
    brackets = ("(" if node.signs[0] == "<" else "[", ")" if node.signs[1] == "<" else "]")
    return Group(brackets[0], (Leaf(low), Leaf(high)), brackets[1], name=middle)


def _same_group(expected: Group, given: Group, tolerance: float) -> bool:
    return (
        (expected.opening, expected.closing) == (given.opening, given.closing)
        and (not expected.name or not given.name or expected.name == given.name)
        and _in_order(expected.items, given.items, tolerance)
    )


def _same_equations(expected: Node, given: Node, tolerance: float) -> bool | None:
    if isinstance(expected, Equation) and isinstance(given, Equation):
        return _same_equation(expected, given, tolerance)
    if isinstance(given, Equation):
        # `4 = 5` is no answer 5, `3 + 2 = 5` and `x = 5` are.
        return bool(given.values) and all(_same(expected, v, tolerance) for v in given.values)
    if isinstance(expected, Equation):
        stated = _stated(expected, tolerance)
        return stated is not None and _same(stated, given, tolerance)
    return None


def _same_equation(expected: Equation, given: Equation, tolerance: float) -> bool:
    if _same_sides(expected.parts, given.parts):
        return True
    named = expected.names and {*expected.names} == {*given.names}
    if (named or _is_calculation(expected)) and expected.values and given.values:
        return all(_same(expected.values[-1], node, tolerance) for node in given.values)
    sides = expected.parts, given.parts
    return all(len(parts) == 2 for parts in sides) and _proportional(*sides, signed=False)


def _is_calculation(equation: Equation) -> bool:
    """True for a true equation between numbers alone: `7 · 8 = 56`."""
    found = [leaves.as_expression(Leaf(part)) for part in equation.parts]
    if any(side is None or side.free_symbols for side in found):
        return False
    return all(leaves.same_expression(side, found[-1]) for side in found[:-1])


def _same_inequality(expected: Inequality, given: Inequality) -> bool:
    if expected.sign != given.sign:
        return False
    sides = [(node.left, node.right) for node in (expected, given)]
    unordered = expected.sign == "\\ne"
    if _same_sides(*sides) if unordered else all(map(_same_side, *sides)):
        return True
    return _proportional(*sides, signed=not unordered)


def _same_sides(expected: Sequence[str], given: Sequence[str]) -> bool:
    """True if both have the same expressions as their sides, in any order."""
    left = list(given)
    for side in expected:
        at = next((i for i, other in enumerate(left) if _same_side(side, other)), None)
        if at is None:
            return False
        del left[at]
    return not left


def _same_side(expected: str, given: str) -> bool:
    pair = leaves.as_expression(Leaf(expected)), leaves.as_expression(Leaf(given))
    return None not in pair and leaves.same_expression(*pair)


def _proportional(expected: Sequence[str], given: Sequence[str], *, signed: bool) -> bool:
    """True if the differences of the sides are nonzero constant multiples of each other.

    With `signed` the multiple must be positive. So `y = 2x + 1` is `2x − y + 1 = 0`, and `x² = 4`
    is not `x = 2`. Constant differences say nothing about a variable: `x + 1 = x + 2` is not
    `0 = 1`.
    """
    differences = []
    for left, right in (expected, given):
        pair = leaves.as_expression(Leaf(left)), leaves.as_expression(Leaf(right))
        if pair[0] is None or pair[1] is None:
            return False
        differences.append(pair[0] - pair[1])
    symbols = [difference.free_symbols for difference in differences]
    if symbols[0] != symbols[1] or not symbols[0]:
        return False
    if agreement.proportional(differences[0], sympy.Integer(1), signed=False):
        return False
    return agreement.proportional(*differences, signed=signed)
