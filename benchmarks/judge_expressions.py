"""Random expressions as answers contain them, many of which are expensive to compute."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

LONGEST = 200
"""Longest answer, in characters."""

_NUMBERS = ("0", "1", "2", "3", "5", "7", "10", "12", "99", "500", "1000", "65537", "999999999")
_LARGE = ("10^{9}", "10^{20}", "1.1", "0.1", "0.000001", "10^{-50}", "123456789012345678901")
_SYMBOLS = ("x", "y", "n", "a")
_CONSTANTS = ("\\pi", "e", "i", "\\sqrt{2}")


@dataclasses.dataclass(frozen=True)
class Spelling:
    """The notation of a construct."""

    fraction: str
    power: str
    root: str
    factorial: str
    binomial: str
    function: str
    product: str
    names: tuple[str, ...]

    def written(self, form: str, *parts: str) -> str:
        return getattr(self, form).format(*parts)


LATEX = Spelling(
    fraction="\\frac{{{0}}}{{{1}}}",
    power="({0})^{{{1}}}",
    root="\\sqrt[{1}]{{{0}}}",
    factorial="({0})!",
    binomial="\\binom{{{0}}}{{{1}}}",
    function="\\{1}({0})",
    product="{0}\\cdot {1}",
    names=("sin", "cos", "tan", "ln", "exp", "arctan", "sinh", "sec", "log", "cot", "arcsin"),
)
PYTHON = Spelling(
    fraction="({0})/({1})",
    power="({0})**({1})",
    root="({0})**(1/({1}))",
    factorial="factorial({0})",
    binomial="binomial({0}, {1})",
    function="{1}({0})",
    product="{0}*{1}",
    names=("sin", "cos", "tan", "exp", "sqrt", "atan", "sinh", "sec", "ceiling", "floor", "abs"),
)

_LATEX_ONLY = (
    "e^{{{0}}}",
    "|{0}|",
    "\\lfloor {0}\\rfloor",
    "\\log_{{{1}}}({0})",
    "{0}!!",
    "\\sqrt{{{0}}}",
    "\\sum_{{k=1}}^{{{1}}} {0}",
    "\\prod_{{k=1}}^{{{1}}} {0}",
    "\\int_0^{{{1}}} {0} dx",
    "\\lim_{{x\\to {1}}} {0}",
    "\\max({0}, {1})",
    "\\gcd({0}, {1})",
    "{0} \\bmod {1}",
    "{0}\\pm {1}",
    "\\begin{{pmatrix}}{0}&{1}\\\\{1}&2\\end{{pmatrix}}",
    "\\begin{{pmatrix}}1&1\\\\1&0\\end{{pmatrix}}^{{{0}}}",
    "\\Gamma({0})",
    "f({0})",
)

# Answers made of expressions: lists, pairs, equations, sets, orders.
_ANSWERS = (
    *(("{0}",) * 12),
    "{0}, {1}",
    "({0}, {1})",
    "[{0}, {1})",
    "x={0}",
    "x={0}, y={1}",
    "{0}={1}",
    "x<{0}",
    "{0}<{1}",
    "{0}<x\\le {1}",
    "x \\ne {0}",
    "\\{{{0}, {1}\\}}",
    "\\{{x \\mid x>{0}\\}}",
    "(-\\infty,{0})\\cup({1},\\infty)",
    "{0}:{1}",
    "{0}\\%",
)


def answer(draws: random.Random) -> str:
    """An answer of at most `LONGEST` characters."""
    spelling = draws.choice((LATEX, LATEX, LATEX, PYTHON))
    depth = draws.choice((1, 2, 3, 4, 5, 8))
    while True:
        form = draws.choice(_ANSWERS)
        parts = [draws.choice(_SHAPES)(draws, spelling, depth) for _ in range(2)]
        text = form.format(*parts)
        if len(text) <= LONGEST:
            return text
        depth = max(depth - 1, 0)


def _tree(draws: random.Random, spelling: Spelling, depth: int) -> str:
    """Any expression."""
    if depth <= 0 or draws.random() < 0.1:
        return _atom(draws, spelling)
    # One part is mostly shallow, because otherwise no deep answer would be short.
    parts = [_tree(draws, spelling, depth - 1), _tree(draws, spelling, draws.randrange(depth) // 2)]
    draws.shuffle(parts)
    if spelling is LATEX and draws.random() < 0.35:
        return draws.choice(_LATEX_ONLY).format(*parts)
    if draws.random() < 0.25:
        return f"({parts[0]}{draws.choice('+-')}{parts[1]})"
    form = draws.choice(("fraction", "power", "root", "factorial", "binomial", "function"))
    if form == "function":
        parts[1] = draws.choice(spelling.names)
    return spelling.written(draws.choice((form, form, "product")), *parts)


def _tower(draws: random.Random, spelling: Spelling, depth: int) -> str:
    """A power of a power of a power, of one base, with something around it."""
    base = draws.choice(("e", "9", "x", "1.1", "\\pi", "0.5", "(x+1)", "(-2)"))
    text = _atom(draws, spelling)
    for _ in range(depth):
        text = spelling.written("power", base, text) if spelling is PYTHON else f"{base}^{{{text}}}"
    around = draws.choice(("{}", "({})!", "\\sin({})", "\\frac{{1}}{{{}}}", "-{}", "\\sqrt{{{}}}"))
    return text if spelling is PYTHON else around.format(text)


def _nest(draws: random.Random, spelling: Spelling, depth: int) -> str:
    """One construct within itself, many times."""
    inner = draws.choice(
        ("\\sqrt{{1+{}}}", "\\frac{{1}}{{1+{}}}", "\\sin({})", "(1+{})", "|{}-1|", "\\ln({})")
        if spelling is LATEX
        else ("sqrt(1+{})", "1/(1+{})", "sin({})", "(1+{})", "abs({}-1)")
    )
    text = _atom(draws, spelling)
    for _ in range(depth * 3):
        text = inner.format(text)
    return text


def _row(draws: random.Random, spelling: Spelling, depth: int) -> str:
    """A sum or product of many similar terms: simplification looks for what they have in common."""
    join = draws.choice(("+", "-", spelling.product.format("", "").strip() + " "))
    forms = (
        (
            "\\sin({}x)",
            "\\sqrt{{{}}}",
            "(x+{})^{{50}}",
            "\\cos^2(x+{})",
            "\\frac{{1}}{{x+{}}}",
            "{}!",
        )
        if spelling is LATEX
        else ("sin({}*x)", "sqrt({})", "(x+{})**50", "cos(x+{})**2", "1/(x+{})", "factorial({})")
    )
    form = draws.choice(forms)
    return join.join(form.format(draws.randrange(2, 99)) for _ in range(1 + 2 * depth))


def _atom(draws: random.Random, spelling: Spelling) -> str:
    kind = draws.choice((_NUMBERS, _NUMBERS, _LARGE, _SYMBOLS, _CONSTANTS))
    text = draws.choice(kind)
    if spelling is PYTHON:
        for latex, python in (("\\pi", "pi"), ("\\sqrt{2}", "sqrt(2)"), ("^{", "**("), ("}", ")")):
            text = text.replace(latex, python)
    return text


_SHAPES: tuple[Callable[[random.Random, Spelling, int], str], ...] = (
    _tree,
    _tree,
    _tree,
    _tree,
    _tower,
    _nest,
    _row,
)
