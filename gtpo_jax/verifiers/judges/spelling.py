"""Spells expressions out so that the parser of math-verify reads what was meant, or refuses them.

| the parser alone | here |
|---|---|
| `2(3)` is 2 + 3 and `2\\binom{5}{2}` is 12 | products are written out |
| `3 4` is 7, `1 000` is 0 | neighbors are refused; thousands are joined before |
| `1010_2` is 1010, `x'` is x, `9!!` is (9!)! | refused |
| `1/2x` is 1/(2x), which others read as x/2 | refused as ambiguous |
| `\\cos 60^\\circ` is the cosine of 60 radians | degrees are written out |
| `\\gamma + 2` is Γ(2), I² is I, E is e, `d y` is one name | names that it does not know |
"""

from __future__ import annotations

import re

FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan"),
    *("arccot", "arcsec", "arccsc", "arcsinh", "arccosh", "arctanh"),
    *("sinh", "cosh", "tanh", "log", "ln", "exp", "lg", "max", "min", "gcd", "lcm"),
)
_SIGNS = (
    *("frac", "binom", "sqrt", "cdot", "times", "div", "pi", "infty", "begin", "end", "circ"),
    *("lfloor", "rfloor", "lceil", "rceil", "lvert", "rvert", "int", "sum", "prod", "lim", "to"),
    *("mod", "bmod", "ell", "bar", "hat", "vec", "tilde", "dot", "overline", "overrightarrow"),
)
_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi", "Omega", "varphi", "vartheta"),
)
_KNOWN = {*FUNCTIONS, *_SIGNS, *_GREEK}

COMMAND = re.compile(r"\\[a-zA-Z]+")

# Operations that are not carried out; allowed if the expected answer has them too.
_OPERATION = re.compile(
    r"\\(int|iint|oint|sum|prod|lim|mod|bmod|pmod|gcd|lcm|max|min|sup|inf|det|lfloor|lceil)"
    r"(?![a-zA-Z])|\\frac\s*\{\s*(d)\s*\}\s*\{\s*d"
)

_REFUSED = re.compile(
    r"!\s*!"  # a double factorial, or a factorial of one
    r"|\d\s+\.?\d"  # two numbers side by side
    r"|\d\s*_"  # a base
    r"|\^\s*(?:\d+|[a-zA-Z])\s*\^"  # a power of a power without braces
    r"|[-+]\s*[-+]\s*[-+]"  # a row of signs
    r"|\\frac\s*\{\s*d\s*[a-zA-Z]?\s*\}\s*\{\s*d\s*[a-zA-Z]\s*\}"  # a derivative of a name: 0
    r"|['\"#@$?]"
    r"|\\(?:bar|hat|vec|tilde|dot|overline|overrightarrow)\s*\{?\s*[^\sa-zA-Z\\{]"  # not a name
    r"|/\s*\d+(?:\.\d+)?\s*(?:[a-zA-Z(]|\\(?!\\|cdot|times|div|end|rfloor|rceil|rvert))"  # 1/2x
)
_MIXED = re.compile(
    r"(?<![\d.}^_)a-zA-Z])(\d+)"
    r"\s*(?:\\frac\s*\{(\d+)\}\s*\{(\d+)\}|\s(\d+)\s*/\s*(\d+))(?!\s*[\d^])"
)
# A letter with a dot is a name to the parser; these letters without one are more than that.
_MISREAD = re.compile(
    r"(?P<name>\\gamma(?![a-zA-Z])|\\Gamma(?![a-zA-Z]|\s*\()|[EId])"
    r"|(?<!\\log)_\s*\{[^{}]*\}|\\(?:bar|hat|vec|tilde|dot|overline|overrightarrow)\s*\{[^{}]*\}"
    r"|\\\\|\\[a-zA-Z]+"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_HEAD = re.compile(
    rf"\\(?:{'|'.join(FUNCTIONS)})(?![a-zA-Z])(?:\s*[_^]\s*(?:\{{[^{{}}]*\}}|\w))*"
    r"|\\begin\s*\{[a-z]+\}"
)
_BOUNDARY = re.compile(
    r"(?<=[\d)!}])\s*(?=\(|\\frac|\\binom|\\begin|\\lfloor|\\lceil|(?<=[)}!])\d)"
)


def operations(text: str) -> set[str]:
    """The operations that a text names without carrying them out: sums, integrals, limits, …"""
    return {found[1] or "d" for found in _OPERATION.finditer(text)}


def spelled_out(text: str) -> str | None:
    """The text with mixed numbers, degrees and products written out; None if it is refused."""
    text = re.sub(r"_\s*(\w)", r"_{\1}", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
    if any(int(m[2] or m[4]) >= int(m[3] or m[5]) for m in _MIXED.finditer(text)):
        return None  # neither a mixed number nor clearly a product
    text = _MIXED.sub(lambda m: rf"({m[1]}+\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}})", text)
    unknown = {command[1:] for command in COMMAND.findall(text.replace(r"\\", " "))} - _KNOWN
    if unknown or _REFUSED.search(text) or not text.isascii():
        return None
    text = _DEGREES.sub(r"(\\frac{\1\\cdot \\pi}{180})", text)
    if "\\circ" in text:
        return None
    text = re.sub(r"\\lg(?![a-zA-Z])", r"\\log_{10}", text.replace("\\bmod", "\\mod"))
    text = re.sub(r"\^\s*(\d+(?:\.\d+)?)", r"^{\1}", text)
    if not operations(text):
        text = _MISREAD.sub(_as_name, text)
    # A mark behind the head of a function keeps its argument from becoming a factor.
    marked = _HEAD.sub(lambda found: f"{found[0]}\0", text)
    return _BOUNDARY.sub(r"\\cdot ", marked).replace("\0", "")


def _as_name(found: re.Match[str]) -> str:
    return rf"\dot{{{found['name'].lstrip(chr(92))}}}" if found["name"] else found[0]
