"""Translates values and expressions that Python programs print into LaTeX.

It covers `str` and `repr` of numbers, fractions, complex numbers, sets, matrices and arrays, and
the functions and constants of sympy, math and numpy.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gtpo_jax.verifiers.judges.groups import end_of_group, split

_MODULES = re.compile(r"(?<![\w.\\])(?:math|cmath|np|numpy|jnp|sp|sympy|mpmath|mp|S)\.(?=[A-Za-z])")
_FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "ln", "exp"),
    *("arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "arcsinh", "arccosh", "arctanh"),
)
_INVERSE = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "pi"),
    *("lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
)


def _as_is(value: str, *_: str) -> str:
    return value.strip().strip("'\"")


def _grouped(value: str) -> str:
    return value if re.fullmatch(r"\s*[\d.]+\s*", value) else f"({value})"


def _fraction(above: str, below: str = "1") -> str:
    above = _as_is(above)
    return above if below == "1" else rf"\frac{{{above}}}{{{below}}}"


def _brackets(opening: str, closing: str) -> Callable[..., str]:
    return lambda *parts: f"{opening}{','.join(parts)}{closing}"


def _interval(low: str, high: str, left_open: str = "False", right_open: str = "False") -> str:
    infinite = re.compile(r"oo|inf|\\infty")
    opening = "(" if left_open == "True" or infinite.search(low) else "["
    closing = ")" if right_open == "True" or infinite.search(high) else "]"
    return f"{opening}{low},{high}{closing}"


def _set(*parts: str) -> str:
    inner = ",".join(parts).strip()
    return f"\\{{{inner[1:-1] if re.match(r'[{[(]', inner) else inner}\\}}"


def _matrix(rows: str, *_: str) -> str:
    """Nested lists as a matrix, a flat list as a column."""
    lists = _elements(rows)
    if not all(row.startswith("[") for row in lists):
        return _table([[row] for row in lists])
    return _table([_elements(row) for row in lists])


def _array(values: str, *_: str) -> str:
    """An array of two dimensions as a matrix; of one, as a list; of none, as its value."""
    is_matrix = values.startswith("[") and all(row[:1] == "[" for row in _elements(values))
    return _matrix(values) if is_matrix else values


def _elements(text: str) -> list[str]:
    """The elements of a list as a program prints it; numpy puts no commas between them."""
    inner = text.strip()[1:-1].strip()
    if "," in inner:
        return [piece.strip() for piece in split(inner, ",") if piece.strip()]
    return re.findall(r"\[[^][]*\]", inner) or [piece.rstrip(".") for piece in inner.split()]


def _table(rows: list[list[str]]) -> str:
    body = "\\\\".join("&".join(row) for row in rows)
    return rf"\begin{{pmatrix}}{body}\end{{pmatrix}}"


_CALLS: dict[str, Callable[..., str]] = {
    **{name: lambda *x, name=name: rf"\{name}({','.join(x)})" for name in _FUNCTIONS},
    **{f"a{name}": lambda x, name=name: rf"\arc{name}({x})" for name in _INVERSE},
    "log": lambda x, base: (
        rf"\log_{{{base}}}({x})"
    ),  # with one argument it stays, as its base is unclear
    "log2": lambda x: rf"\log_{{2}}({x})",
    "log10": lambda x: rf"\log_{{10}}({x})",
    "sqrt": lambda x: rf"\sqrt{{{x}}}",
    "cbrt": lambda x: rf"\sqrt[3]{{{x}}}",
    "root": lambda x, n: rf"\sqrt[{n}]{{{x}}}",
    **dict.fromkeys(("Abs", "abs", "fabs"), lambda x: f"|{x}|"),
    **dict.fromkeys(("floor",), lambda x: rf"\lfloor {x}\rfloor "),
    **dict.fromkeys(("ceiling", "ceil"), lambda x: rf"\lceil {x}\rceil "),
    "gamma": lambda x: rf"\Gamma({x})",
    "factorial": lambda x: f"{_grouped(x)}!",
    **dict.fromkeys(("binomial", "comb"), lambda n, k: rf"\binom{{{n}}}{{{k}}}"),
    **dict.fromkeys(("Pow", "pow"), lambda x, n: f"({x})^{{{n}}}"),
    **dict.fromkeys(("Rational", "Fraction"), _fraction),
    **dict.fromkeys(("Integer", "Float", "Decimal", "int", "float", "float64", "float32"), _as_is),
    **dict.fromkeys(("int64", "int32", "mpf", "sympify", "str", "Poly"), _as_is),
    **dict.fromkeys(("Matrix", "ImmutableDenseMatrix", "MutableDenseMatrix"), _matrix),
    **dict.fromkeys(("array", "asarray", "tensor"), _array),
    **dict.fromkeys(("FiniteSet", "set", "frozenset"), _set),
    **dict.fromkeys(("Tuple", "Point", "Point2D", "Point3D"), _brackets("(", ")")),
    "Interval": _interval,
    "Interval.open": _brackets("(", ")"),
    "Interval.Lopen": _brackets("(", "]"),
    "Interval.Ropen": _brackets("[", ")"),
    "Union": lambda *parts: "\\cup ".join(parts),
    "Eq": lambda left, right: f"{left} = {right}",
    "Ne": lambda left, right: rf"{left} \ne {right}",
}
_CALL = re.compile(rf"(?<![\w\\.])({'|'.join(map(re.escape, sorted(_CALLS, key=len)[::-1]))})\(")
_NAMES = (
    (re.compile(r"(?<![a-zA-Z\\])(?:oo|inf|infinity)(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"(?<![a-zA-Z\\])(?:EmptySet|set\(\))(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"(?<![a-zA-Z\\])Reals(?![a-zA-Z])"), r"\\mathbb{R}"),
    (re.compile(rf"(?<![a-zA-Z\\])({'|'.join(_GREEK)})(?=\d)"), r"\\\1_"),
    (re.compile(rf"(?<![a-zA-Z\\])({'|'.join(_GREEK)})(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"(?<![a-zA-Z0-9\\_])([a-df-zA-DF-Z])(\d+)(?!\d*[.}])"), r"\1_{\2}"),
    (re.compile(r"(?<![a-zA-Z\\])log(?=_)"), r"\\log"),
    (re.compile(r"(?<![a-zA-Z\\])(sin|cos|tan|ln)(?=\s*[\d^\\]|\s+[a-z](?![a-z]))"), r"\\\1 "),
)
_BOTH = re.compile(r"\(([^()]*[<>=][^()]*)\)\s*([&|])\s*\(([^()]*[<>=][^()]*)\)")

# `{x: 2, y: 3}` or `[{x: 2}, {x: 3}]`, as sympy says what solves equations.
_VALUE = r"\s*[A-Za-z]\w*\s*:[^:<>=|,{}\\]+"
_SOLUTION = re.compile(
    rf"\[?\{{{_VALUE}(?:,{_VALUE})*\}}\]?|\[\{{{_VALUE}\}}(?:,\s*\{{{_VALUE}\}})+\]"
)

_PLAIN_LOG = re.compile(r"(?<![a-zA-Z\\])log(?=\s*[\d(]|\s+[a-z](?![a-z]))")
_FLAT = re.compile(r"\[[^][]*\]")


def in_latex(text: str) -> str:
    """The text with calls, names and nested lists in LaTeX."""
    if _SOLUTION.fullmatch(text):
        text = re.sub(r"[][{}]", "", text).replace(":", " =")
    text = _calls(_MODULES.sub("", text))
    for pattern, replacement in _NAMES:
        text = pattern.sub(replacement, text)
    both = _BOTH.fullmatch(text)
    if both:
        text = rf"{both[1]} \{'SEPand' if both[2] == '&' else 'SEPor'} {both[3]}"
    if re.fullmatch(r"\[\s*\[[^][]*\](?:[\s,]*\[[^][]*\])*\s*\]", text):
        rows = [_elements(row) for row in _elements(text)]
        if len({len(row) for row in rows}) == 1 and rows[0]:
            return _table(rows)
    return text


def as_expected(answer: str, expected: str) -> str:
    """The answer with its one-letter constants and logarithms read as in the expected answer.

    `E`, `I` and `1j` are the constants of a program unless the expected answer has such a letter.
    `log` without a backslash has base e in a program and base 10 in a school: it is read as the
    expected `\\ln` or `\\log`, or not at all. A flat list is a column if a matrix is expected.
    """
    for name, meaning in (("E", "e"), ("I", "i")):
        if not re.search(_alone(name), expected):
            answer = re.sub(_alone(name), meaning, answer)
    if "j" not in expected:
        answer = re.sub(r"(?<=\d)j(?![a-zA-Z])", "i", answer)
    for name in ("log", "ln"):
        if f"\\{name}" in expected:
            answer = _PLAIN_LOG.sub(rf"\\{name} ", answer)
    if "\\begin" in expected and _FLAT.fullmatch(answer):
        return _matrix(answer)
    return answer


def _alone(letter: str) -> str:
    return rf"(?<![a-zA-Z\\_]){letter}(?![a-zA-Z_])"


def _calls(text: str, begin: int = 0) -> str:
    found = _CALL.search(text, begin)
    while found:
        end = end_of_group(text, found.end() - 1)
        if end > len(text):
            return text
        inner = _calls(text[found.end() : end - 1])
        parts = [part.strip() for part in split(inner, ",")] if inner.strip() else []
        try:
            written = _CALLS[found[1]](*parts)
        except TypeError:  # not a known call: the number of arguments differs
            written = f"{found[0]}{inner})"
        text = text[: found.start()] + written + text[end:]
        found = _CALL.search(text, found.start() + len(written))
    return text
