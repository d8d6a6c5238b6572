"""math-verify's own comparison, for cases that values do not decide and whose cost is bounded."""

from __future__ import annotations

import math

import math_verify
import sympy

from gtpo_jax.verifiers.judges.values import Expression

_MOST_TERMS = 500
"""The approximate number of terms of the expanded difference."""
_MOST_INSIDE = 100
"""A number in an exponent or an argument: a power or a function of a sum is multiplied out."""


def proved(left: Expression, right: Expression) -> bool:
    """True if math-verify says that two expressions are equal; False if asking costs too much."""
    if terms(left) + terms(right) > _MOST_TERMS:
        return False
    if left.is_Symbol or right.is_Symbol:  # math-verify compares these by name
        return sympy.simplify(left - right) == 0
    return math_verify.verify(left, right, timeout_seconds=None)


def terms(node: Expression) -> float:
    """The approximate number of terms of an expression after it is multiplied out."""
    if not node.args:
        return 1.0
    if node.is_Add:
        return sum(map(terms, node.args))
    if node.is_Mul:
        return math.prod(map(terms, node.args))
    inside = node.args[1:] if node.is_Pow else node.args
    if any(_is_large(number) for part in inside for number in part.atoms(sympy.Rational)):
        return math.inf
    if node.is_Pow and node.exp.is_Integer:
        return terms(node.base) ** abs(int(node.exp))
    return 1.0 + sum(map(terms, node.args))


def _is_large(number: sympy.Rational) -> bool:
    return max(abs(number.p), number.q) > _MOST_INSIDE
