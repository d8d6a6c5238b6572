"""Numbers, words and expressions, as math-verify's parser reads them, and when two of them agree.

Texts that math-verify gets wrong are kept from it (`spelling`) or decided before it is asked:

| math-verify alone | here |
|---|---|
| rounds decimals to six places: 0.0000001 is 0.0000002 | decimals are exact fractions |
| takes 9% for 9 as well as for 0.09 | a percent sign is 1/100 |
| takes words for products of letters: `yes` is `sey` | words are compared as words |
| takes `A` for `a` | case counts |
| compares some constants to 15 digits | values decide, to as many digits as are needed |
| computes 9^(9^9) for hours | an expression that is too large is not read (`building`) |
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from fractions import Fraction
from typing import Any

import sympy

from gtpo_jax.verifiers.judges import agreement, numbers, parsing, proving, spelling
from gtpo_jax.verifiers.judges.nodes import Leaf
from gtpo_jax.verifiers.judges.units import split_unit
from gtpo_jax.verifiers.judges.values import Expression

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_LETTER = re.compile(r"\\text\s*\{\s*([a-zA-Z])\s*\}")  # upright: `\mathrm{e}`

# Two letters may be two points, AB, and one is a symbol.
_WORD = re.compile(
    r"[^\W\d_]{3,}|\b(?:no|is|it|of|or|in|to|at|by|on|as|be|if|so|we|an)\b|^A(?= )", re.IGNORECASE
)

# Letters beside a sign of mathematics: `6abc`, `\frac{abc}{2}`, `xyz^2`.
_FACTORS = re.compile(
    r"(?:(?<=[\d})^_+/{(])|(?<=^-)|(?<=[({]-))[a-z]{3,4}(?![a-z])|[a-z]{3,4}(?=[\^_+/)}])"
)
_REPEATING = re.compile(r"(-?\d*)\.(\d*)\\overline\s*\{(\d+)\}", flags=re.ASCII)

_UNDONE = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
_STEPS = (sympy.floor, sympy.ceiling, sympy.Mod, sympy.sign)
"""Functions that are equal at many points without being the same."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A text that is compared as a text: `yes`, `no solution`."""

    text: str


@dataclasses.dataclass(frozen=True)
class Exact:
    """A number that was written out."""

    value: Fraction
    place: Fraction | None = None  # one unit of its last digit, where it may have been rounded


Value = Any
"""A `Word`, an `Exact` number, or an expression."""


def _is_matrix(found: Value) -> bool:
    return isinstance(found, sympy.MatrixBase)


def value(leaf: Leaf) -> Value | None:
    """The value of a leaf; None if it is unknown."""
    found = _value(leaf.text)
    if found is None or not leaf.percent:
        return found
    if isinstance(found, Exact):
        return dataclasses.replace(found, value=found.value / 100)
    return None if isinstance(found, Word) else found / 100


def is_clear(found: Value) -> bool:
    """True if a value can be compared: not a sentence, which has many equivalent wordings."""
    return not isinstance(found, Word) or re.fullmatch(r"[\w()'-]+", found.text) is not None


def same(expected: Leaf, given: Leaf, tolerance: float) -> bool:
    """True if a leaf equals the expected one, which has a value."""
    given = _with_letters_as_unit(expected, given)
    if given.unit not in ("", expected.unit) and (expected.unit or given.unit[0] == "#"):
        return False
    left, right = value(expected), value(given)
    if isinstance(left, Word) != isinstance(right, Word):
        left, right = _product(left), _product(right)
    if left is None or right is None or isinstance(left, Word) or isinstance(right, Word):
        return left is not None and left == right
    if isinstance(left, Exact) and left.place is not None:
        number = right.value if isinstance(right, Exact) else _number(right)
        written = right.place if isinstance(right, Exact) else None
        place = Fraction(0) if written is None else max(left.place, written)
        return number is not None and numbers.agree(left.value, number, tolerance, place=place)
    return same_expression(_as_expression(left), _as_expression(right))


def sentence(text: str) -> str:
    """A text of words alone, in lower case but for symbols; empty for every other text."""
    text = re.sub(r"\\SEP(and|or)", r"\1", _TEXT.sub(r"\1", text))
    text = " ".join(text.split()).strip(" .!")
    if not _WORD.search(text) or not re.fullmatch(r"[\w\s.,;:'\"()!?&%/-]*", text):
        return ""
    return _WORD.sub(lambda found: found[0].casefold(), text)


def as_expression(leaf: Leaf) -> Expression | None:
    """A leaf as an expression; None when it is a word, a matrix or unknown."""
    found = value(leaf)
    if found is None or isinstance(found, Word) or _is_matrix(found):
        return None
    return _as_expression(found)


def real_value(leaf: Leaf) -> Fraction | None:
    """The number of a leaf, up to a negligible error; None if it is no number."""
    found = value(leaf)
    if isinstance(found, Exact):
        return found.value
    return None if found is None or isinstance(found, Word) else _number(found)


def same_expression(left: Expression, right: Expression) -> bool:
    """True if the values of two expressions agree; math-verify decides if the values cannot."""
    if _is_matrix(left) or _is_matrix(right):
        if getattr(left, "shape", None) != getattr(right, "shape", None):
            return False
        return all(itertools.starmap(same_expression, zip(left, right, strict=True)))
    if left.has(*_UNDONE) or right.has(*_UNDONE):
        left, right = left.doit(), right.doit()
    if left == right:
        return True
    if (left.is_Rational and right.is_Rational) or left.is_infinite or right.is_infinite:
        return False
    same = agreement.agree(left, right)
    varies = bool(left.free_symbols or right.free_symbols)
    if same is None or (same and varies and (left.has(*_STEPS) or right.has(*_STEPS))):
        return proving.proved(left, right)
    return same


@functools.lru_cache(maxsize=1024)
def _value(text: str) -> Value | None:
    number = numbers.read_number(text)
    if number is not None:
        rounded = "." in text or "e" in text.lower()
        return Exact(number, numbers.last_place(text) if rounded else None)
    repeating = _REPEATING.fullmatch(text)
    if repeating:
        return Exact(_repeating(*repeating.groups()))
    text = _LETTER.sub(r" \1 ", text)
    if "\\text" in text or re.search(r"[A-Za-z]{3,}", _FACTORS.sub(" ", _without_commands(text))):
        plain = _TEXT.sub(r"\1", text)
        return Word(" ".join(plain.split()).casefold())
    return _parsed(text)


def _product(found: Value | None) -> Value | None:
    """A word of a few letters as their product: `abc` as `a*b*c`."""
    if isinstance(found, Word) and re.fullmatch("[a-z]{3,4}", found.text):
        return _parsed(" ".join(found.text))
    return found


def _with_letters_as_unit(expected: Leaf, given: Leaf) -> Leaf:
    """`5 J` where the expected answer has no J that it could be a product with."""
    rest, unit = split_unit(given.text, by_letters=True)
    letters = set(re.findall("[a-zA-Z]", given.text.removeprefix(rest)))
    if given.unit or not unit or letters & set(expected.text):
        return given
    return Leaf(rest, unit, given.percent)


def _without_commands(text: str) -> str:
    text = re.sub(r"\\(?:begin|end)\s*\{[a-z]*\}", " ", text.replace(r"\\", " "))
    return spelling.COMMAND.sub(" ", text)


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    size = Fraction(int((whole.lstrip("-") or "0") + fixed), 10 ** len(fixed))
    size += Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    return -size if whole.startswith("-") else size


def _parsed(text: str) -> Expression | None:
    spelled = spelling.spelled_out(text)
    return None if spelled is None else parsing.parsed(spelled)


def _as_expression(found: Value) -> Expression:
    if isinstance(found, Exact):
        return sympy.Rational(found.value.numerator, found.value.denominator)
    return found


def _number(found: Value) -> Fraction | None:
    return None if _is_matrix(found) else agreement.real_value(found)
