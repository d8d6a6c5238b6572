"""One spelling for what answers write in many: LaTeX, Unicode, or as a program would."""

from __future__ import annotations

import re

_CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": "\\times ",
        "·": "\\cdot ",
        "⋅": "\\cdot ",
        "÷": "/",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        "∪": "\\cup ",
        "∈": "\\in ",
        "∅": "\\emptyset ",
        "±": "\\pm ",
        "°": "^\\circ ",
        "²": "^2",
        "³": "^3",
        "θ": "\\theta ",
        "ℝ": "\\mathbb{R}",
        "％": "%",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
    }
)

# In this order: later rules rely on what earlier ones left.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)(?:\{,\}|\\[,! ])(?=\d{3}(?!\d))", ","),  # of thousands
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![a-zA-Z])\.?", ""),
        (r"\\!", ""),
        (r"√\s*(?=\()", r"\\sqrt"),
        (r"√\s*(\d+|[a-z])", r"\\sqrt{\1}"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:leq|leqslant|leqq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant|geqq)(?![a-zA-Z])", r"\\ge"),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\degree(?![a-zA-Z])", r"^\\circ"),
        (
            r"\\(?:textbf|textit|textrm|textnormal|mathrm|mathit|mathbf|mathsf|mbox"
            r"|operatorname)\s*\{",
            r"\\text{",
        ),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\s+", " "),
        (r"\\text\{\s*\}", " "),
        (r"\\text\{,?\s*(and|or)\s*\}|(?<![a-zA-Z\\{])(and|or)(?![a-zA-Z}])", r" \\SEP\1\2 "),
        (r"\\%", "%"),
        (r"(?<![a-zA-Z\\])percent$", "%"),
        # As a program writes it.
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:oo|inf|infinity)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![a-zA-Z\\])(sqrt|sin|cos|tan|ln|exp)(?=\s*\()", r"\\\1"),
    )
]
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_WHOLE = re.compile(r"\\(?:boxed|fbox|text|textbf|textrm|mathrm|mathbf)\s*\{")


def clean(text: str) -> str:
    """The text without what surrounds it and without spellings that mean the same."""
    text = _unwrapped(text.translate(_CHARACTERS).strip())
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _braced_argument(text, "\\sqrt")
    text = _braced_argument(text, "^")
    return _unwrapped(text.strip())


def _unwrapped(text: str) -> str:
    """Without math signs, boxes, stars and the full stop around the whole of it."""
    while True:
        inner = text.removesuffix(".").strip() if re.search(r"[\w})\]]\.$", text) else text
        for opening, closing in _WRAPPERS:
            if inner.startswith(opening) and inner.endswith(closing):
                middle = inner[len(opening) : -len(closing)]
                if middle.strip() and opening not in middle and closing not in middle:
                    inner = middle.strip()
        box = _WHOLE.match(inner)
        if box and inner.endswith("}") and end_of_group(inner, box.end() - 1) == len(inner):
            inner = inner[box.end() : -1].strip()
        if inner == text:
            return text
        text = inner


def end_of_group(text: str, at: int) -> int:
    """The place behind the bracket that closes the one at `at`; the length + 1 if none does."""
    closing = {"(": ")", "{": "}", "[": "]"}[text[at]]
    depth = 0
    for place in range(at, len(text)):
        if place and text[place - 1] == "\\":
            continue
        depth += (text[place] == text[at]) - (text[place] == closing)
        if depth == 0:
            return place + 1
    return len(text) + 1


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
