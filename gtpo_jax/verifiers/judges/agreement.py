"""Compares the values of expressions: equal or proportional, to some digits, at some points.

The expressions decide the number of digits. Computing a value twice, with more digits the second
time, shows how exact it was. Parts between 2^-s and 2^l in size need 2(l + s) more bits: so `√2`
differs from `√2 + 10^-90`, and `e^(π√163)` from the integer next to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
import sympy

from gtpo_jax.verifiers.judges.values import Evaluation, Expression, NoValue, Number, Point

DIGITS = 50
_MORE = 30
_EXACT = 1e-20  # the largest relative error of a value
_MOST = 2_000
"""The largest number of digits; values that need more to differ stay undecided."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
_SCALES = (1, 1, 1, 1, 1, 1, sympy.Rational(1, 100), 100, 10_000, 1_000_000)
_SIGNS = (1, 2, 4, 3, 5, 6, 7)
_NEAR = 6  # constants of the expressions next to which points are placed too

_Valued = Callable[[int], tuple[Number, int]]
"""Maps digits to a value, and the number of further digits that its parts require."""


def agree(left: Expression, right: Expression) -> bool | None:
    """True if both have the same values; None if there is no point where both have a value."""
    found = None
    for at in points(left, right):
        same = _same_value(_valued(left, at), _valued(right, at))
        if same is False:
            return False
        found = found or same
    return found


def proportional(left: Expression, right: Expression, *, signed: bool) -> bool:
    """True if one is a nonzero constant multiple of the other; with `signed`, a positive one."""
    pairs = [(_valued(left, at), _valued(right, at)) for at in points(left, right)]
    pairs = [pair for pair in pairs if not any(map(_vanishes, pair))]
    if not pairs:
        return False
    first = pairs[0]
    for pair in pairs:
        crossed = _product(pair[0], first[1]), _product(pair[1], first[0])
        if not _same_value(*crossed):
            return False
    return not signed or _positive(*first)


def real_value(expression: Expression) -> Fraction | None:
    """The value of a real constant, up to a negligible error; None for all else."""
    try:
        rough, _ = _valued(expression, {})(DIGITS)
        fine, _ = _valued(expression, {})(DIGITS + _MORE)
    except NoValue:
        return None
    with mpmath.workdps(DIGITS + _MORE):
        if mpmath.im(fine) != 0 or abs(rough - fine) > _EXACT * abs(fine):
            return None
        sign, mantissa, exponent, _ = mpmath.re(fine)._mpf_
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


def points(*expressions: Expression) -> Iterator[Point]:
    """Points of both signs and many sizes; a single one, without coordinates, for constants."""
    symbols: list[Expression] = [*sorted({s for e in expressions for s in e.free_symbols}, key=str)]
    if not symbols:
        yield {}
        return
    for step in (-1, 1):  # where high powers stay moderate
        near = [step + sympy.Rational(at + 1, 1009) for at in range(len(symbols))]
        yield dict(zip(symbols, near, strict=True))
    for place, scale in enumerate(_SCALES):
        primes = itertools.islice(itertools.cycle(_PRIMES), place % 6, None)
        yield {
            symbol: scale
            * _sign(place, at)
            * sympy.Rational(1000 * prime + 1, 1000 * (7 + 2 * place + at) + 9)
            for at, (symbol, prime) in enumerate(zip(symbols, primes, strict=False))
        }
    if len(symbols) == 1:  # the formula may change there: |x - 3000|
        numbers = sorted({n for e in expressions for n in e.atoms(sympy.Rational)}, key=abs)
        for number, step in itertools.product(numbers[-_NEAR:], (-1, 1)):
            yield {symbols[0]: number + sympy.Rational(step, 7)}
            yield {symbols[0]: -number + sympy.Rational(step, 7)}


def _sign(place: int, at: int) -> int:
    """The sign of coordinate `at` in point `place`; 8 points hold all signs of 3 coordinates."""
    return (-1) ** (place & _SIGNS[at % len(_SIGNS)]).bit_count()


def _valued(expression: Expression, at: Point) -> _Valued:
    def valued(digits: int) -> tuple[Number, int]:
        evaluation = Evaluation(at, digits)
        number = evaluation(expression)
        bits = evaluation.largest - evaluation.smallest
        return number, math.ceil(2 * bits * math.log10(2))

    return valued


def _product(left: _Valued, right: _Valued) -> _Valued:
    def valued(digits: int) -> tuple[Number, int]:
        (a, more_a), (b, more_b) = left(digits), right(digits)
        with mpmath.workdps(digits):
            return a * b, more_a + more_b

    return valued


def _same_value(left: _Valued, right: _Valued) -> bool | None:
    """True if two values are the same; None if one is missing or not exact enough."""
    digits = needed = DIGITS
    for final in (False, True):
        try:
            (rough_l, more_l), (rough_r, more_r) = left(digits), right(digits)
            (fine_l, _), (fine_r, _) = left(digits + _MORE), right(digits + _MORE)
        except NoValue:
            return None
        with mpmath.workdps(digits + _MORE):
            error = abs(rough_l - fine_l) + abs(rough_r - fine_r)
            distance = abs(fine_l - fine_r)
            size = max(abs(fine_l), abs(fine_r))
            if distance > 1000 * error and distance > mpmath.mpf(10) ** -digits * size:
                return False
            exact = distance == 0 or error <= _EXACT * max(size, 1)
        needed = digits if final else DIGITS + max(more_l, more_r)
        if needed <= digits or needed > _MOST:
            break
        digits = needed
    return True if exact and needed <= _MOST else None


def _vanishes(valued: _Valued) -> bool:
    """True if a value is 0 or missing."""
    try:
        return valued(DIGITS)[0] == 0 or _same_value(valued, lambda _: (mpmath.mpf(0), 0)) is True
    except NoValue:
        return True


def _positive(left: _Valued, right: _Valued) -> bool:
    ratio: Any = left(DIGITS)[0] / right(DIGITS)[0]
    return mpmath.im(ratio) == 0 and mpmath.re(ratio) > 0
