"""Normalizes the spellings of an answer: LaTeX, Unicode, or the notation of programs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gtpo_jax.language import answers
from gtpo_jax.verifiers.judges import characters, printed
from gtpo_jax.verifiers.judges.groups import end_of_group, ungrouped


def _rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


# Markup that changes only the look of an answer.
_LOOKS = _rules(
    (
        (r"\\(?:left|right|middle|[bB]igg?[lr]?|(?:no)?limits)(?![a-zA-Z])\.?", ""),
        (r"\\(?:display|text|script|scriptscript)style(?![a-zA-Z])", ""),
        (
            r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
            r"|boldmath|mathstrut|strut|hfill|noindent|centering|nonumber|notag)(?![a-zA-Z])",
            "",
        ),
        (r"\{\s*\\(?:rm|bf|it|sf|tt|sl)(?![a-zA-Z])([^{}]*)\}", r"\\text{\1}"),
        (r"\\(?:rm|bf|it|sf|tt|sl)(?![a-zA-Z])", ""),
        (
            r"\\(?:(?:textcolor|colorbox|color|fcolorbox\s*\{[^{}]*\})\s*\{[^{}]*\}"
            r"|(?:underline|uline|ensuremath|boldsymbol|bm|pmb|smash|mathop|mathrel|mathbin"
            r"|mathord|mathopen|mathclose)(?![a-zA-Z]))\s*\{",
            r"\\LOOK{",
        ),
        (r"\\(?:color|hspace\*?|vspace\*?|[hv]?phantom|label|tag\*?)\s*\{[^{}]*\}", ""),
        (r"\\(?:underline|boldsymbol|bm|pmb|mathop)(?![a-zA-Z])", ""),
        (
            r"\\(?:textbf|textit|textrm|textnormal|textsf|texttt|textsl|textsc|textup|emph|hbox"
            r"|mathrm|mathit|mathbf|mathsf|mathtt|mbox|operatorname\*?)(?![a-zA-Z])\s*\{",
            r"\\text{",
        ),
        (
            r"\\(?:begin|end)\s*\{(?:equation|align|aligned|gather|gathered|split|math"
            r"|displaymath|center)\*?\}",
            " ",
        ),
        (r"\\!", ""),
    )
)

# The order matters: later rules rely on the results of earlier ones.
_RULES = _rules(
    (
        (r"(?<=\d)(?:\{,\}|\\[,! ])(?=\d{3}(?!\d))", ","),  # of thousands
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:nicefrac|sfrac|flatfrac|xfrac)(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:leq|leqslant|leqq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant|geqq)(?![a-zA-Z])", r"\\ge"),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"!=|\\not\s*=", r"\\ne "),
        (r"==", "="),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\var(epsilon|phi|theta|rho|sigma|kappa)(?![a-zA-Z])", r"\\\1"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:lvert|rvert|vert)(?![a-zA-Z])\s*", "|"),
        (r"\\(?:lbrack)(?![a-zA-Z])", "["),
        (r"\\(?:rbrack)(?![a-zA-Z])", "]"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\(?:ast|star|bullet)(?![a-zA-Z])", r"\\cdot"),
        (r"\\(?:text)?degree(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"\\(?:textdollar|mathdollar)(?![a-zA-Z])\s*", r"\\$"),
        (r"\\(arc)?tg(?![a-zA-Z])", r"\\\1tan"),
        (r"\\(?:arc)?ctg(?![a-zA-Z])", r"\\cot"),
        (r"(?<!\\)\\[,;:> /]|\\q?quad(?![a-zA-Z])|~|\s+", " "),
        (r"\\(?:thin|en|neg|med|thick)space(?![a-zA-Z])|\\(?:enspace|nobreakspace)\b", " "),
        (r"\\text\{\s*\}", " "),
        (r"\\text\{\s*(d|[\d.]+)\s*\}", r"\1"),
        (r"\\text\{,?\s*(and|or)\s*\}|(?<![a-zA-Z\\{])(and|or)(?![a-zA-Z}])", r" \\SEP\1\2 "),
        (r"\\(?:land|wedge)(?![a-zA-Z])", r" \\SEPand "),
        (r"\\(?:lor|vee)(?![a-zA-Z])", r" \\SEPor "),
        (r"\\%", "%"),
        (r"(?<![a-zA-Z\\])(?:per ?cent|pct)$", "%"),
        (
            r"\\text\{\s*(arc(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan|cot|csc)h?|sec|ln|log|exp"
            r"|lcm|gcd|max|min)\s*\}(?=\s*[\w(\\^{])",
            r"\\\1 ",
        ),
        (
            r"[(\[]\s*\\begin\s*\{array\}\s*\{[^{}]*\}(.*?)\\end\s*\{array\}\s*[)\]]",
            r"\\begin{pmatrix}\1\\end{pmatrix}",
        ),
        # The notation of programs.
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
    )
)
_WRAPPERS = (("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"))
_WHOLE = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{")
_MATH_SIGN = re.compile(r"(?<!\\)\$\$?|(?<!\\)\\[()\[\]]")
_PUNCTUATION = re.compile(r"(?:(?<=[^\s.])\s*\.|(?<=[$*`)\]])\s*[,;:])$")


def clean(text: str) -> str:
    """The text without its surroundings, in its one normal spelling."""
    text = characters.in_ascii(text).strip()
    for pattern, replacement in _LOOKS:
        text = pattern.sub(replacement, text)
    text = _unwrapped(_without_command(text, "\\LOOK"))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = printed.in_latex(text.strip())
    text = re.sub(r"\^\s*(\\(?:frac\{[^{}]*\}|sqrt)\{[^{}]*\})", r"^{\1}", ungrouped(text))
    text = _braced_argument(text, "\\sqrt")
    text = _braced_argument(text, "^")
    return _unwrapped(re.sub(r"\s+", " ", text).replace(" ,", ",").strip())


def _unwrapped(text: str) -> str:
    """Without math signs, boxes, stars, quotes and the punctuation around the whole of it."""
    while True:
        inner = _PUNCTUATION.sub("", text).strip()
        inner = _without_math_signs(inner)
        inner = re.sub(r"\\\\$", "", inner).strip()
        for opening, closing in _WRAPPERS:
            if inner.startswith(opening) and inner.endswith(closing):
                middle = inner[len(opening) : -len(closing)]
                if middle.strip() and opening not in middle:
                    inner = middle.strip()
        inner = answers.unboxed(inner)
        words = _WHOLE.match(inner)
        if words and inner.endswith("}") and end_of_group(inner, words.end() - 1) == len(inner):
            inner = inner[words.end() : -1].strip()
        if inner == text:
            return text
        text = inner


def _without_math_signs(text: str) -> str:
    """Without `$`, `\\(` and the like, if they come in pairs; one alone is a currency."""
    signs = [found[0] for found in _MATH_SIGN.finditer(text)]
    if not signs or sum(sign in ("$", "$$") for sign in signs) % 2:
        return text
    text = re.sub(r"((?<!\\)\$\$?|(?<!\\)\\[)\]])\s*[.,;:]$", r"\1", text)
    return _MATH_SIGN.sub(" ", text).strip()


def _without_command(text: str, command: str) -> str:
    """The text with the arguments of a command in its place."""
    at = text.rfind(command + "{")  # the innermost first
    while at >= 0:
        begin = at + len(command)
        end = end_of_group(text, begin)
        inner = text[begin + 1 : end - 1] if end <= len(text) else text[begin + 1 :]
        text = f"{text[:at]} {inner} {text[end:]}"
        at = text.rfind(command + "{", 0, at)
    return text


def _braced_argument(text: str, before: str) -> str:
    """`sqrt(…)` and `^(…)` with braces for their parentheses."""
    at = text.find(before)
    while at >= 0:
        begin = at + len(before)
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        if text[begin : begin + 1] == "(":
            end = end_of_group(text, begin)
            if end <= len(text):
                text = f"{text[:begin]}{{{text[begin + 1 : end - 1]}}}{text[end:]}"
        at = text.find(before, at + 1)
    return text
