"""Values of expressions at points, to a requested number of digits, and of bounded size.

sympy evaluates a number of any size, however long that takes. Here every part of an expression must
lie within 10^±20,000, which is checked before anything is computed from it, so that a tower of
powers costs no more than its first levels.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import sympy
from mpmath.libmp import NoConvergence
from sympy.core.function import AppliedUndef

Expression = Any
"""An expression of sympy, evaluated or not."""
Number = Any
"""A real or complex number of mpmath."""
Point = Mapping[Any, Expression]

MOST_DIGITS = 20_000
"""Digits of a value before or after the point. Larger and smaller values are no answers."""

_MOST_BITS = round(MOST_DIGITS / math.log10(2))
_MOST_EXPONENT = MOST_DIGITS * math.log(10)
_MOST_FACTORIAL = 7_000  # 7000! has 23,878 digits
_ROUGH = 30  # bits that suffice to determine a size
_MOST_ANGLE = 133  # bits: 10^40
_MOST_CHOICES = 40  # bits of n and k
_MOST_FACTORS = 100  # of a binomial coefficient that is multiplied out


class NoValue(Exception):
    """The expression has no value at that point: a pole, infinity, or no number at all."""


class TooLarge(NoValue):
    """The value, or a part of it, is too large or too small."""


class Evaluation:
    """Evaluates at one point to a number of digits, and notes the sizes of all parts."""

    def __init__(self, at: Point, digits: int):
        self.at, self.digits = at, digits
        self.largest = self.smallest = 0
        """The exponents of two of the largest part, and of the smallest that is not 0."""
        self._known: dict[Expression, Number] = {}

    def __call__(self, expression: Expression) -> Number:
        """The value; raises `NoValue`."""
        with mpmath.workdps(self.digits):
            try:
                return self._value(expression)
            except (ArithmeticError, ValueError, TypeError, NoConvergence) as error:
                raise NoValue(str(error)) from error

    def _value(self, node: Expression) -> Number:
        if node not in self._known:
            self._known[node] = self._sized(self._compute(node))
        return self._known[node]

    def _sized(self, number: Number) -> Number:
        if not mpmath.isfinite(number):
            raise NoValue("it is not finite")
        if number != 0:
            size = mpmath.mag(number)
            if abs(size) > _MOST_BITS:
                raise TooLarge(f"a part of about 2^{size}")
            self.largest, self.smallest = max(self.largest, size), min(self.smallest, size)
        return number

    def _compute(self, node: Expression) -> Number:
        if isinstance(node, sympy.Rational):
            self._sized(mpmath.mpf(node.p))
            return mpmath.mpf(node.p) / self._sized(mpmath.mpf(node.q))
        if isinstance(node, sympy.NumberSymbol | sympy.Float):
            return node._to_mpmath(mpmath.mp.prec)
        if node is sympy.I:
            return mpmath.mpc(0, 1)
        if node in self.at:
            return self._value(self.at[node])
        if not node.args:
            raise NoValue(f"{node} has none")
        if isinstance(node, AppliedUndef):
            return _some_function(node.func.__name__, *map(self._value, node.args))
        function = _FUNCTIONS.get(node.func)
        if function is None:
            raise NoValue(f"{node.func} has none")
        return function(*map(self._value, node.args))


def _power(base: Number, exponent: Number) -> Number:
    if base == 0:
        if mpmath.re(exponent) <= 0 and exponent != 0:
            raise NoValue("0 to a negative power")
        return mpmath.mpf(exponent == 0)
    if exponent == mpmath.mpf(1) / 2:
        return mpmath.sqrt(base)
    with mpmath.workprec(_ROUGH):
        size = abs(mpmath.log(+base))
        if abs(exponent) * size > _MOST_EXPONENT:
            raise TooLarge("a power")
    return mpmath.power(base, exponent)


def _bounded(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    """A function that grows like e^z, for arguments whose value can be written."""

    def bounded(z: Number) -> Number:
        if abs(z) > _MOST_EXPONENT:
            raise TooLarge("an exponential function")
        return function(z)

    return bounded


def _trigonometric(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    def bounded(z: Number) -> Number:
        if abs(mpmath.im(z)) > _MOST_EXPONENT:
            raise TooLarge("an exponential function")
        if mpmath.mag(z) > _MOST_ANGLE:
            raise TooLarge("an angle")
        return function(z)

    return bounded


def _factorial(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    def bounded(z: Number) -> Number:
        if abs(z) > _MOST_FACTORIAL:
            raise TooLarge("a factorial")
        return function(z)

    return bounded


def _binomial(n: Number, k: Number) -> Number:
    if mpmath.isint(n) and mpmath.isint(k) and 0 <= k <= n:
        k = min(k, n - k)
    few = mpmath.isint(k) and 0 <= k <= _MOST_FACTORS
    if not few and max(mpmath.mag(n), mpmath.mag(k)) > _MOST_CHOICES:
        raise TooLarge("a binomial coefficient")
    if few:  # exact, and without the poles of the gamma function
        factors = ((n - i) / mpmath.mpf(i + 1) for i in range(int(k)))
        return functools.reduce(lambda product, factor: product * factor, factors, mpmath.mpf(1))
    return mpmath.binomial(n, k)


def _real(function: Callable[..., Number]) -> Callable[..., Number]:
    """A function of real numbers only."""

    def real(*numbers: Number) -> Number:
        if any(mpmath.im(number) != 0 for number in numbers):
            raise NoValue("an order of complex numbers")
        return function(*map(mpmath.re, numbers))

    return real


def _modulo(dividend: Number, divisor: Number) -> Number:
    if divisor == 0:
        raise NoValue("modulo 0")
    return dividend - divisor * mpmath.floor(dividend / divisor)


def _logarithm(z: Number, base: Number = mpmath.e) -> Number:
    if z == 0:
        raise NoValue("the logarithm of 0")
    return mpmath.log(z) if base is mpmath.e else mpmath.log(z) / mpmath.log(base)


def _some_function(name: str, *arguments: Number) -> Number:
    """A function for an unknown name, the same in every process."""
    digest = hashlib.sha256(name.encode()).digest()
    terms = (
        argument * (1 + mpmath.mpf(digest[place]) / 257) / (place + 1)
        for place, argument in enumerate(arguments)
    )
    return mpmath.cos(mpmath.fsum(terms) + mpmath.mpf(digest[-1] + 1) / 300) + 2


_SAME_NAME = (
    *("asin", "acos", "atan", "acot", "asec", "acsc", "asinh", "acosh", "atanh", "acoth"),
    *("re", "im", "sign"),
)
_PERIODIC = ("sin", "cos", "tan", "cot", "sec", "csc")
_GROWING = ("exp", "sinh", "cosh", "tanh", "coth", "sech", "csch")

_FUNCTIONS: dict[Any, Callable[..., Number]] = {
    sympy.Add: lambda *terms: mpmath.fsum(terms),
    sympy.Mul: lambda *factors: mpmath.fprod(factors),
    sympy.Pow: _power,
    sympy.log: _logarithm,
    sympy.Abs: abs,
    sympy.arg: mpmath.arg,
    sympy.conjugate: mpmath.conj,
    sympy.factorial: _factorial(mpmath.factorial),
    sympy.gamma: _factorial(mpmath.gamma),
    sympy.binomial: _binomial,
    sympy.floor: _real(mpmath.floor),
    sympy.ceiling: _real(mpmath.ceil),
    sympy.Max: _real(max),
    sympy.Min: _real(min),
    sympy.Mod: _real(_modulo),
    sympy.UnevaluatedExpr: lambda inner: inner,
    **{getattr(sympy, name): getattr(mpmath, name) for name in _SAME_NAME},
    **{getattr(sympy, name): _trigonometric(getattr(mpmath, name)) for name in _PERIODIC},
    **{getattr(sympy, name): _bounded(getattr(mpmath, name)) for name in _GROWING},
}
