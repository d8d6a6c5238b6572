"""Numbers written as text: their exact values, and when two of them agree."""

from __future__ import annotations

import decimal
import re
from fractions import Fraction

LONGEST = 4000
"""Characters of a number, at most: longer ones are not read."""

# Commas are read as separators of thousands only: `1,2` is a pair, not twelve.
_NUMBER = re.compile(
    r"[+-]?((\d{1,3}((,\d{3})+|( \d{3})+)|\d+)(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", flags=re.ASCII
)
_FRACTION = re.compile(r"([+-]?)(\d+)\s*/\s*(\d+)", flags=re.ASCII)

_AROUND_ZERO = 1e-3  # share of the tolerance, which has nothing to be relative to
_NOISE = Fraction(1, 10**12)  # share of a number: the noise of floating point


def read_number(text: str) -> Fraction | None:
    """The value of a text that is one number; None for every other text."""
    text = text.strip()
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        return None
    return Fraction(decimal.Decimal(re.sub("[, ]", "", text)))


def last_place(text: str) -> Fraction:
    """One unit of the last digit of a number as it is written: 1/100 for `2.50`."""
    exponent = decimal.Decimal(re.sub("[, ]", "", text.strip())).as_tuple().exponent
    return Fraction(10) ** int(exponent)


def read_fraction(text: str) -> Fraction | None:
    """The value of a text that is one integer over another; None for every other text."""
    text = text.strip()
    found = _FRACTION.fullmatch(text) if len(text) <= LONGEST else None
    if found is None or int(found[3]) == 0:
        return None
    return Fraction(int(found[2]), int(found[3])) * (-1 if found[1] == "-" else 1)


def agree(
    expected: Fraction, given: Fraction, tolerance: float, *, place: Fraction = Fraction(0)
) -> bool:
    """`|given − expected| ≤ tolerance · |expected|`; two integers must be equal.

    `place` is the `last_place` of the number with fewer digits, or 0 if either is exact. Two
    decimals that differ by a unit in that place are different, such as 16386.16 and 16386.17,
    whatever the tolerance, apart from the noise of floating point.

    An integer is expected exactly: a given decimal may differ from it by at most `tolerance · 1`,
    however large the integer is. For an expected zero the bound is a thousandth of the tolerance.
    """
    if given == expected:
        return True
    if expected.denominator == given.denominator == 1:
        return False
    size, distance = abs(expected), abs(given - expected)
    if expected.denominator == 1:
        size = min(size, Fraction(1)) or Fraction(_AROUND_ZERO)
    elif place and distance >= max(place, _NOISE * size):
        return False
    return distance <= Fraction(tolerance) * size
