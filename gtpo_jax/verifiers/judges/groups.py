"""Braces: where a group of LaTeX ends, and what stands in one that is no argument of a command."""

from __future__ import annotations

import re

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)

_DEEPEST = 50
_CLOSING = {"(": ")", "{": "}", "[": "]"}

_OPERATORS = (
    *("cdot", "times", "div", "pm", "mp", "cup", "cap", "setminus", "in", "notin", "to", "mid"),
    *("le", "ge", "ne", "approx", "equiv", "SEPand", "SEPor", "infty", "pi", "lbrace", "langle"),
    *("Rightarrow", "over", "choose", "alpha", "beta", "gamma", "delta", "theta", "lambda", "mu"),
)
_TAKES_NOTHING = {f"\\{name}" for name in _OPERATORS}
_BORDERS = {
    *("", ",", ";", ":", "=", "<", ">", "(", ")", "[", "]", "\\{", "\\}", "&", "\\\\", "|"),
    *("\\le", "\\ge", "\\ne", "\\cup", "\\cap", "\\in", "\\to", "\\SEPand", "\\SEPor", "\\mid"),
}
_TWO = {"\\frac", "\\binom"}
_STACKED = {"\\over": "\\frac", "\\choose": "\\binom"}


def end_of_group(text: str, at: int) -> int:
    """The place behind the bracket that closes the one at `at`; the length + 1 if none does."""
    opening, closing = text[at], _CLOSING[text[at]]
    depth = 0
    for place in range(at, len(text)):
        if place and text[place - 1] == "\\":
            continue
        depth += (text[place] == opening) - (text[place] == closing)
        if depth == 0:
            return place + 1
    return len(text) + 1


def outside(text: str) -> list[str]:
    """The tokens of a text; each bracket with all that it holds is one."""
    tokens, at = [], 0
    while at < len(text):
        end = end_of_group(text, at) if text[at] in _CLOSING else len(text) + 1
        if end > len(text):
            found = TOKEN.match(text, at)
            assert found
            end = found.end()
        tokens.append(text[at:end])
        at = end
    return tokens


def split(text: str, separators: str) -> list[str]:
    """The pieces of a text between separators that stand outside of brackets."""
    pieces = [""]
    for token in outside(text):
        if token in separators:
            pieces.append("")
        else:
            pieces[-1] += token
    return pieces


def ungrouped(text: str, depth: int = 0) -> str:
    """The text with what its groups mean: a fraction, a set, or nothing besides what they hold.

    `{1 \\over 2}` is a fraction and `{1, 2}` a set, as programs print it. Other braces go where
    they hold one sign or a whole part, as in `a \\ne {2}`; where they bind, they stay.
    """
    if depth > _DEEPEST:
        return text
    tokens = outside(_stacked(text))
    pieces: list[str] = []
    previous, arguments = "", 0  # arguments that the last fraction still lacks
    for place, token in enumerate(tokens):
        is_group = len(token) > 1 and token[0] in _CLOSING
        if is_group:
            inner = ungrouped(token[1:-1], depth + 1)
            if token[0] == "{" and not arguments and not _takes_argument(previous):
                following = next((t for t in tokens[place + 1 :] if not t.isspace()), "")
                token = _meaning(inner, previous in _BORDERS and following in _BORDERS)
            else:
                token = token[0] + inner + token[-1]
        if token in _TWO:
            arguments = 2
        elif arguments and not token.isspace():
            arguments -= 1
            token = token if token[0] == "{" else f"{{{token}}}"  # `\frac12`, `\frac\pi{4}`
        pieces.append(token)
        if token and not token.isspace():
            previous = token if token[0] == "\\" else token[:1] + token[-1:]
    return "".join(pieces)


def _takes_argument(previous: str) -> bool:
    if previous[-1:] in ("^", "_", "}", "]") and previous not in ("\\}", "\\]"):
        return True
    return re.fullmatch(r"\\[a-zA-Z]+", previous) is not None and previous not in _TAKES_NOTHING


def _stacked(text: str) -> str:
    """`a \\over b` and `n \\choose k` as commands with arguments."""
    tokens = outside(text)
    for place, token in enumerate(tokens):
        if token in _STACKED:
            above, below = "".join(tokens[:place]), "".join(tokens[place + 1 :])
            return f"{_STACKED[token]}{{{above.strip()}}}{{{below.strip()}}}"
    return text


def _meaning(inner: str, is_part: bool) -> str:
    content = inner.strip()
    tokens = outside(content)
    if content in ("", ",", ";"):
        return content
    is_described = "\\mid" in tokens or "|" in tokens or ":" in tokens
    if "," in tokens or ";" in tokens or (is_described and is_part):
        return f"\\{{{content}\\}}"
    if is_part or re.fullmatch(r"\d+|\\[a-zA-Z]+|[a-zA-Z]", content):
        return f"{content} " if content[0] == "\\" else content
    return f"{{{inner}}}"
