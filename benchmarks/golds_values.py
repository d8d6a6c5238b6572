"""Values of answers in LaTeX by floating point alone: evidence independent of any judge.

Numbers, letters, fractions, roots, powers, common functions, lists, tuples, intervals, equations.
Letters get random values. Anything else in an answer makes its value unknown.
"""

from __future__ import annotations

import cmath
import math
import random
import re
from collections.abc import Sequence

Worth = tuple[str, tuple[complex, ...]]
"""Brackets and signs of an answer in their order, and the values between them."""

_POINTS = 3
_CLOSE = 1e-9
_TOLERANCE = 1e-6  # for an expected decimal, the default of `verifier.tolerance`
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\%|\d+(?:\.\d+)?|\.\d+|\S")
_FUNCTIONS = {
    **{"\\sin": cmath.sin, "\\cos": cmath.cos, "\\tan": cmath.tan, "\\ln": cmath.log},
    **{"\\exp": cmath.exp, "\\sinh": cmath.sinh, "\\cosh": cmath.cosh, "\\log": cmath.log10},
    **{"\\arctan": cmath.atan, "\\arcsin": cmath.asin, "\\arccos": cmath.acos},
}
_NAME = re.compile(
    r"[a-zA-Z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega)"
)
_CONSTANTS = {"\\pi": math.pi, "e": math.e, "i": 1j, "\\infty": 1e300}
_PARTS = re.compile(r"(,|;|=|<|>|\\le|\\ge|\\ne|\\cup|\\in|\\pm|\\mp)(?![a-zA-Z])")
_LEFT_OUT = re.compile(
    r"\\(?:left|right|displaystyle|quad)(?![a-zA-Z])|\\[,;:! ]|(?<!\\)\$"
    r"|\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?|\^\{?\\circ\}?"
)


_ASSIGNED = r"(?<![a-zA-Z\\_^{(])([a-zA-Z])\s*=(?!=)"
_WORDS = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{3,}")


class _Unknown(Exception):
    """The value of an expression is unknown."""


def evidence(first: str, second: str) -> bool | None:
    """True if two answers have equal values at random points, False if not; None if one is unknown.

    A unit may be left out. Two units that are different words are unknown too, and so are words
    besides numbers.
    """
    if _plain(first) == _plain(second) != "":
        return True
    if _WORDS.search(_LEFT_OUT.sub(" ", first)) and _WORDS.search(_LEFT_OUT.sub(" ", second)):
        return None
    close = _TOLERANCE if re.search(r"\d\.\d|(?<!\d)\.\d", first) else _CLOSE
    (first, unit), (second, other) = _without_unit(first), _without_unit(second)
    if unit and other and unit != other:
        return None
    pairs = [(_worth(first, seed), _worth(second, seed)) for seed in range(_POINTS)]
    if any(one is None or other is None for one, other in pairs):
        return None
    return all(one and other and _agree(one, other, close) for one, other in pairs)


def _without_unit(text: str) -> tuple[str, str]:
    before = re.match(r"(-?)\s*(\\?\$|[£€]|Rs\.?)\s*(?=\d[\d.,]*$)", text)
    if before:
        return before[1] + text[before.end() :], before[2]
    behind = re.search(
        r"(?<=[\d)}])\s*\$?((?:\s[a-z]{2,}|[a-zA-Z°]{2,})+(?:/[a-z]+)?(?:\^.*)?)\.?\$?$", text
    )
    return (text[: behind.start()], behind[1].strip()) if behind else (text, "")


def _plain(text: str) -> str:
    return re.sub(r"[\s$]", "", text).casefold().strip(".") if _WORDS.search(text) else ""


def _agree(one: Worth, other: Worth, close: float) -> bool:
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    in_order = _close(one[1], other[1], close)
    if set(one[0]) <= {","}:  # a list, whose order does not matter
        key = lambda value: (round(value.real, 6), round(value.imag, 6))  # noqa: E731
        return in_order or _close(sorted(one[1], key=key), sorted(other[1], key=key), close)
    return in_order


def _close(one: Sequence[complex], other: Sequence[complex], close: float) -> bool:
    return all(
        abs(x - y) <= close * max(abs(x), abs(y), 1e-30) for x, y in zip(one, other, strict=True)
    )


def _worth(text: str, seed: int) -> Worth | None:
    text = _LEFT_OUT.sub(" ", text).replace("\\{", " ").replace("\\}", " ")
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:leq|geq|neq)(?![a-zA-Z])", lambda found: found[0][:-1], text)
    text = re.sub(r"(?<=\d)\{?,\}?(?=\d{3}(?!\d))", "", text.strip(" ."))
    text = re.sub(r"(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])", ",", text)
    if len(set(re.findall(_ASSIGNED, text))) == 1:  # one name may be left out
        text = re.sub(_ASSIGNED, "", text)
    outer = ""
    if re.match(r"[(\[]", text) and re.search(r"[)\]]$", text) and "," in text:
        outer, text = text[0] + text[-1], text[1:-1]
    pieces = _PARTS.split(text)
    try:
        values = tuple(_Reader(piece, seed).value() for piece in pieces[::2])
    except (_Unknown, ArithmeticError, ValueError, IndexError, RecursionError):
        return None
    if {*pieces[1::2]} == {"="} and _close(values[1:], values[:-1], _CLOSE):
        return "", values[-1:]  # a calculation and its value
    return outer + "".join(pieces[1::2]), values


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, seed: int):
        self.tokens = _TOKEN.findall(text.replace("**", "^"))
        self.at, self.seed = 0, seed

    def value(self) -> complex:
        value = self._sum()
        if self.at < len(self.tokens):
            raise _Unknown
        return value

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, *expected: str) -> str:
        token = self._next()
        if not token or (expected and token not in expected):
            raise _Unknown
        self.at += 1
        return token

    def _sum(self) -> complex:
        total: complex = 0
        sign = -1 if self._next() == "-" else 1
        if self._next() in ("+", "-"):
            self._take()
        while True:
            total += sign * self._product()
            if self._next() not in ("+", "-"):
                return total
            sign = -1 if self._take() == "-" else 1

    def _product(self) -> complex:
        product = self._power()
        while self._next() and self._next() not in ("+", "-", ")", "]", "}", "|"):
            if self._next() in ("\\cdot", "\\times", "*"):
                self._take()
                product *= self._power()
            elif self._next() in ("/", "\\div", ":"):
                self._take()
                product /= self._power()
            elif self._next() in ("%", "\\%"):
                self._take()
                product /= 100
            else:
                if self._next()[0].isdigit() and self.tokens[self.at - 1][0].isdigit():
                    raise _Unknown
                product *= self._power()
        return product

    def _power(self) -> complex:
        base = self._atom()
        while self._next() in ("^", "!"):
            if self._take() == "!":
                base = math.gamma(base.real + 1)
            else:
                exponent = self._argument()
                base = base**exponent
        return complex(base)

    def _argument(self) -> complex:
        """A group, or one token: `\frac12` has two arguments."""
        if self._next() == "{":
            return self._atom()
        token = self._next()
        if token[:1].isdigit() and len(token) > 1:  # one digit of the number
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        sign = -1 if token == "-" else 1
        if sign < 0:
            self._take()
        return sign * self._atom()

    def _atom(self) -> complex:
        token = self._take()
        if token in ("{", "(", "["):
            inner = self._sum()
            self._take({"{": "}", "(": ")", "[": "]"}[token])
            return inner
        if token == "|":
            inner = self._sum()
            self._take("|")
            return abs(inner)
        if token[0].isdigit() or token[0] == ".":
            return complex(float(token))
        if token == "\\frac":
            return self._argument() / self._argument()
        if token == "\\sqrt":
            degree: complex = 2
            if self._next() == "[":
                degree = self._atom()
            return self._argument() ** (1 / degree)
        if token in _FUNCTIONS:
            return self._function(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if _NAME.fullmatch(token):
            name = token
            if self._next() == "_":
                self._take()
                while self._next() and self._next() != "}":
                    name += self._take()
                    if "{" not in name:
                        break
                if self._next() == "}" and "{" in name:
                    self._take()
            return random.Random(f"{name.replace('{', '')} {self.seed}").uniform(0.5, 2)
        raise _Unknown

    def _function(self, name: str) -> complex:
        exponent: complex = 1
        base: complex = 0
        if self._next() == "_":
            self._take()
            base = self._argument()
        if self._next() == "^":
            self._take()
            exponent = self._argument()
            if exponent == -1:
                raise _Unknown
        argument = self._power()
        while self._next() and (self._next()[0].isalnum() or self._next() == "\\pi"):
            argument *= self._power()
        found = cmath.log(argument) / cmath.log(base) if base else _FUNCTIONS[name](argument)
        return found**exponent
