"""Evaluates expressions part by part, checking the size of each before sympy computes it.

The parser returns trees as they were written. sympy evaluates at once: a power of numbers to all
its digits, a sum over a million terms. So the size of every part is determined here before it is
built, and a part larger than `values.MOST_DIGITS` is not built.
"""

from __future__ import annotations

import math

import sympy

from gtpo_jax.verifiers.judges.values import MOST_DIGITS, Evaluation, Expression, NoValue, TooLarge

_DIGITS = 30  # enough to determine sizes

_MOST_RADICAND = 300
"""Digits of a number whose root is not exact: sympy searches for its factors."""
_MOST_ROUNDED = 1_000
"""Digits of a number that is rounded to an integer."""
_MOST_STEPS = 200
"""Factors of a binomial coefficient whose arguments are not integers."""
_MOST_ENTRIES = 400
"""Entries of a matrix."""

_I = sympy.Symbol("i", real=True)
"""The imaginary unit as it was written."""

_ROUNDING = (sympy.floor, sympy.ceiling, sympy.Mod)


def built(tree: Expression) -> Expression:
    """The evaluated expression or matrix; raises `NoValue` if it is too large or no number."""
    return _built(tree, Evaluation({_I: sympy.I}, _DIGITS))


def _built(node: Expression, sizes: Evaluation) -> Expression:
    if isinstance(node, sympy.MatrixBase):
        if len(node) > _MOST_ENTRIES:
            raise TooLarge("a matrix")
        return sympy.ImmutableMatrix(node).applyfunc(lambda entry: _built(entry, sizes))
    if isinstance(node, sympy.Float):
        return sympy.Rational(str(node))
    if isinstance(node, sympy.Symbol):
        return sympy.I if node == _I else node
    if not node.args:
        return node
    if isinstance(node, sympy.MatrixExpr):
        return _matrix(node, sizes)
    _look_at(node, sizes)
    return _evaluated(node, [_built(part, sizes) for part in node.args])


def _look_at(node: Expression, sizes: Evaluation) -> None:
    """Raises `TooLarge` for a constant that is too large."""
    if isinstance(node, sympy.Expr) and not node.free_symbols - {_I}:
        try:
            sizes(node)
        except TooLarge:
            raise
        except NoValue:
            return
        if isinstance(node, _ROUNDING):
            rounded = max(abs(sizes(part)) for part in node.args)
            if rounded > 10**_MOST_ROUNDED:
                raise TooLarge("what is rounded")


def _evaluated(node: Expression, parts: list[Expression]) -> Expression:
    if node.is_Pow:
        return _power(*parts)
    if isinstance(node, sympy.binomial):
        return _binomial(*parts)
    return node.func(*parts)


def _power(base: Expression, exponent: Expression) -> Expression:
    if isinstance(base, sympy.MatrixBase) or isinstance(exponent, sympy.MatrixBase):
        raise NoValue("a power of a matrix")
    coefficient = base.as_coeff_Mul()[0] if not base.is_Number else base
    digits = _digits(coefficient)
    if exponent.is_Integer:
        if digits * abs(int(exponent)) > MOST_DIGITS:
            raise TooLarge("a power")
    elif exponent.is_Rational and digits > _MOST_RADICAND:
        return _root(base, exponent)
    return sympy.Pow(base, exponent)


def _root(base: Expression, exponent: sympy.Rational) -> Expression:
    """The power of a large number, if its root is exact."""
    if not base.is_Rational or base < 0:
        raise TooLarge("a root")
    roots = [sympy.integer_nthroot(int(part), int(exponent.q)) for part in (base.p, base.q)]
    if not all(exact for _, exact in roots):
        raise TooLarge("a root")
    return _power(sympy.Rational(roots[0][0], roots[1][0]), sympy.Integer(exponent.p))


def _binomial(n: Expression, k: Expression) -> Expression:
    if n.is_Integer and k.is_Integer and 0 <= k <= n:
        return sympy.Integer(math.comb(int(n), int(k)))  # its size is known
    if k.is_Integer and k > _MOST_STEPS:
        raise TooLarge("a binomial coefficient")
    return sympy.binomial(n, k)


def _digits(number: Expression) -> float:
    """The approximate number of digits of a rational number; 0 for any other."""
    if not number.is_Rational:
        return 0.0
    return math.log10(max(abs(number.p), number.q, 1))


def _matrix(node: Expression, sizes: Evaluation) -> Expression:
    """Sums and products of matrices."""
    parts = [_built(part, sizes) for part in node.args]
    if not isinstance(node, sympy.MatAdd | sympy.MatMul):
        raise NoValue(f"{node.func} of matrices")
    result = parts[0]
    for part in parts[1:]:
        result = result + part if isinstance(node, sympy.MatAdd) else result * part
    if not isinstance(result, sympy.MatrixBase):
        raise NoValue("no matrix")
    return result.applyfunc(lambda entry: _checked(entry, sizes))


def _checked(entry: Expression, sizes: Evaluation) -> Expression:
    _look_at(entry, sizes)
    return entry
