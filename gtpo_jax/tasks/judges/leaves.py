"""Numbers, words and expressions: what they are, by the parser of math-verify, and when two agree.

math-verify says when two expressions are equal; nothing is equal here without it. What it is wrong
about is kept from it (`spelling`) or looked at before it:

| what it does by itself | here |
|---|---|
| rounds decimals to six places: 0.0000001 is 0.0000002 | decimals are exact fractions |
| takes 9% for 9 as well as for 0.09 | a percent sign is 1/100 |
| takes words for products of letters: `yes` is `sey` | words are compared as words |
| takes `A` for `a` | case counts |
| compares some constants to 15 digits | values to 40 digits must not differ |
| goes on for hours about 9^(9^9) | values of too many digits are not read |
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended import latex2sympy2

from gtpo_jax.tasks.judges import numbers, spelling
from gtpo_jax.tasks.judges.structure import Leaf
from gtpo_jax.tasks.judges.units import split_unit

Expression = Any
"""An expression or a matrix of sympy."""

DIGITS = 40
_CLOSE = sympy.Float(10) ** -30  # relative, of values to 40 digits
_POINTS = 6
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)

_MOST_DIGITS = 20_000
"""Of a value. Larger ones take longer than anybody waits, and are no answers."""

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


@dataclasses.dataclass(frozen=True)
class Word:
    """A text that is compared as one: `yes`, `no solution`."""

    text: str


@dataclasses.dataclass(frozen=True)
class Exact:
    """A number that was written out."""

    value: Fraction
    decimal: bool  # with a point, so that it may have been rounded


Value = Any
"""A `Word`, an `Exact` number, or an expression."""


def _is_matrix(found: Value) -> bool:
    return isinstance(found, sympy.MatrixBase)


def value(leaf: Leaf) -> Value | None:
    """What a leaf stands for; None when it is not known."""
    found = _value(leaf.text)
    if found is None or not leaf.percent:
        return found
    if isinstance(found, Exact):
        return dataclasses.replace(found, value=found.value / 100)
    return None if isinstance(found, Word) else found / 100


def is_clear(found: Value) -> bool:
    """Whether a value can be compared: a sentence says the same in many ways, a word in one."""
    return not isinstance(found, Word) or re.fullmatch(r"[\w()'-]+", found.text) is not None


def same(expected: Leaf, given: Leaf, tolerance: float) -> bool:
    """Whether a leaf is the one expected, which has a value."""
    given = _with_letters_as_unit(expected, given)
    if expected.unit and given.unit and expected.unit != given.unit:
        return False
    left, right = value(expected), value(given)
    if isinstance(left, Word) != isinstance(right, Word):
        left, right = _product(left), _product(right)
    if left is None or right is None or isinstance(left, Word) or isinstance(right, Word):
        return left is not None and left == right
    if isinstance(left, Exact) and left.decimal:
        number = right.value if isinstance(right, Exact) else _decimal(right)
        return number is not None and numbers.agree(left.value, number, tolerance)
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


def same_expression(left: Expression, right: Expression) -> bool:
    """Whether math-verify says that they are equal and no value of them says otherwise."""
    if _is_matrix(left) or _is_matrix(right):
        if getattr(left, "shape", None) != getattr(right, "shape", None):
            return False
        return all(itertools.starmap(same_expression, zip(left, right, strict=True)))
    if not left.free_symbols and not right.free_symbols:
        left, right = left.doit(), right.doit()
    if left == right:
        return True
    if (left.is_Rational and right.is_Rational) or left.is_infinite or right.is_infinite:
        return False
    if any(_differ(*pair) for pair in values(left, right)):
        return False
    if left.is_Symbol or right.is_Symbol:  # math-verify compares these by name
        return sympy.simplify(left - right) == 0
    return math_verify.verify(left, right, timeout_seconds=None)


def values(left: Expression, right: Expression) -> Iterator[tuple[Expression, Expression]]:
    """Both expressions at a few points, of either sign, where both have a value."""
    symbols: list[Expression] = sorted({*left.free_symbols, *right.free_symbols}, key=str)
    for point in range(_POINTS if symbols else 1):
        primes = itertools.islice(itertools.cycle(_PRIMES), point, None)
        at = {
            symbol: sympy.Rational(prime * (-1) ** (point + place // 2), 7 + 2 * point + place)
            for place, (symbol, prime) in enumerate(zip(symbols, primes, strict=False))
        }
        pair = _evaluated(left, at), _evaluated(right, at)
        if pair[0] is not None and pair[1] is not None:
            yield pair


def rational(number: Expression) -> Expression:
    """The fraction of small terms that a value to 40 digits stands for, or the value itself."""
    if not number.is_Float:
        return number
    near = sympy.Rational(Fraction(str(number)).limit_denominator(10**9))
    return near if abs(near - number) <= _CLOSE * abs(number) else number


@functools.lru_cache(maxsize=1024)
def _value(text: str) -> Value | None:
    number = numbers.read_number(text)
    if number is not None:
        return Exact(number, "." in text or "e" in text.lower())
    repeating = _REPEATING.fullmatch(text)
    if repeating:
        return Exact(_repeating(*repeating.groups()), decimal=False)
    text = _LETTER.sub(r" \1 ", text)
    if "\\text" in text or re.search(r"[A-Za-z]{3,}", _FACTORS.sub(" ", _without_commands(text))):
        plain = _TEXT.sub(r"\1", text)
        return Word(" ".join(plain.split()).casefold())
    return _parsed(text)


def _product(found: Value | None) -> Value | None:
    """A word of a few letters as their product, which is what `a*b*c` says of `abc`."""
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
    return spelling.COMMAND.sub(" ", re.sub(r"\\(begin|end)\s*\{[a-z]*\}", " ", text))


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    size = Fraction(int((whole.lstrip("-") or "0") + fixed), 10 ** len(fixed))
    size += Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    return -size if whole.startswith("-") else size


def _parsed(text: str) -> Expression | None:
    spelled = spelling.spelled_out(text)
    if spelled is None:
        return None
    try:
        config = latex2sympy2.ConversionConfig(lowercase_symbols=False)
        parsed: Expression = latex2sympy2.latex2sympy(
            spelled, is_real=True, normalization_config=None, conversion_config=config
        )
    except MemoryError:
        raise
    except Exception:  # of a parser that was given anything at all
        return None
    if _is_matrix(parsed):
        parsed = sympy.ImmutableMatrix(parsed).applyfunc(_exact)
        return parsed if all(_digits(entry) <= _MOST_DIGITS for entry in parsed) else None
    if not isinstance(parsed, sympy.Expr) or parsed.has(sympy.nan, sympy.zoo):
        return None
    parsed = _exact(parsed)
    return parsed if _digits(parsed) <= _MOST_DIGITS else None


def _exact(expression: Expression) -> Expression:
    """Decimals as the fractions that they say, and i as the imaginary unit."""
    floats = {x: sympy.Rational(str(x)) for x in expression.atoms(sympy.Float)}
    units = {x: sympy.I for x in expression.free_symbols if str(x) == "i"}
    return expression.xreplace({**floats, **units}) if floats or units else expression


def _digits(expression: Expression) -> float:
    """About how many digits the value has, at most; symbols count as small."""
    if expression.is_Rational:
        return math.log10(max(abs(expression.p), expression.q))
    parts = [_digits(part) for part in expression.args]
    grows = expression.is_Pow or isinstance(expression, sympy.exp | sympy.factorial)
    if grows and parts[-1] > math.log10(_MOST_DIGITS):
        return math.inf
    if expression.is_Pow:
        return parts[0] * 10 ** parts[1]
    return sum(parts) * (10 ** parts[0] if isinstance(expression, sympy.factorial) else 1)


def _as_expression(found: Value) -> Expression:
    if isinstance(found, Exact):
        return sympy.Rational(found.value.numerator, found.value.denominator)
    return found


def _decimal(expression: Expression) -> Fraction | None:
    """The value of a real constant to 40 digits; None for everything else."""
    number = None if _is_matrix(expression) else _evaluated(expression, {})
    return Fraction(str(number)) if number is not None and number.is_Float else None


def _evaluated(expression: Expression, at: dict[Expression, Expression]) -> Expression | None:
    try:
        number = expression.subs(at).evalf(DIGITS)
        real, imaginary = number.as_real_imag()
    except (ArithmeticError, TypeError, ValueError, AttributeError):
        return None
    finite = real.is_Number and imaginary.is_Number and number.is_finite
    return number if finite else None


def _differ(left: Expression, right: Expression) -> bool:
    size = max(abs(left), abs(right))
    return bool(size > _CLOSE and abs(left - right) > _CLOSE * size)
