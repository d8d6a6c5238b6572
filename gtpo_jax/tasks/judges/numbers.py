"""Numbers as texts: exact values, and when two of them agree."""

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

_AROUND_ZERO = 1e-3  # of the tolerance: there is nothing that it could be relative to


def read_number(text: str) -> Fraction | None:
    """The value of a text that is one number; None for every other text."""
    text = text.strip()
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        return None
    return Fraction(decimal.Decimal(re.sub("[, ]", "", text)))


def read_fraction(text: str) -> Fraction | None:
    """The value of a text that is one integer over another; None for every other text."""
    text = text.strip()
    found = _FRACTION.fullmatch(text) if len(text) <= LONGEST else None
    if found is None or int(found[3]) == 0:
        return None
    return Fraction(int(found[2]), int(found[3])) * (-1 if found[1] == "-" else 1)


def agree(expected: Fraction, given: Fraction, tolerance: float) -> bool:
    """`|given − expected| ≤ tolerance · |expected|`; two integers have to be equal.

    An integer is expected exactly: a given decimal may differ from it by `tolerance · 1` at most,
    however large it is, which is what floating point leaves behind. Around an expected zero the
    bound is a thousandth of the tolerance.
    """
    if given == expected:
        return True
    if expected.denominator == given.denominator == 1:
        return False
    size = abs(expected)
    if expected.denominator == 1:
        size = min(size, Fraction(1)) or Fraction(_AROUND_ZERO)
    return abs(given - expected) <= Fraction(tolerance) * size
