"""What an answer consists of: lists, tuples, intervals, equations, and what stands between them.

All of it is read here and nothing is searched for: a text that is not wholly an answer is none.
"""

from __future__ import annotations

import dataclasses
import re

from gtpo_jax.tasks.judges.units import split_unit


class Unreadable(Exception):
    """The text has no structure that this module knows."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A number, an expression or a word, and its unit."""

    text: str
    unit: str = ""
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Items:
    """Several answers: `1, 2`, `{1, 2}`, `1 or 2`, `±1`. Their order says nothing."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """A tuple or an interval, `(1, 2]`, or the parts of a ratio. Their order and brackets count."""

    opening: str
    items: tuple[Node, ...]
    closing: str
    name: str = ""  # of the variable, when an inequality said it


@dataclasses.dataclass(frozen=True)
class Union:
    """A union of sets."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Equation:
    """`x = 5`, `3 + 2 = 5`: names of what is found, and what is said of them."""

    parts: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Inequality:
    """`left < right`, `left ≤ right` or `left ≠ right`, of expressions."""

    sign: str
    left: str
    right: str


Node = Leaf | Items | Group | Union | Equation | Inequality

_DEEPEST = 20  # brackets in each other

REALS = Group("(", (Leaf("-\\infty"), Leaf("\\infty")), ")")

_TOKEN = re.compile(r"\\(?:begin|end)\s*\{[a-z]*\*?\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
_CLOSING = {*_OPENING.values()}
_SEPARATORS = {",", ";", "\\SEPand", "\\SEPor"}
_ORDERS = {"<", ">", "\\le", "\\ge"}
_RELATIONS = {"=", "\\ne", *_ORDERS}
_FLIPPED = {">": "<", "\\ge": "\\le"}

_THOUSANDS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:(?:,\d{3})+(?![\d,])|(?: \d{3})+(?! ?\d))", flags=re.ASCII
)
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega"
_NAME = re.compile(
    rf"(?:[A-Za-z]|\\(?:{_GREEK}))'*(?:_(?:\w|\{{\w+\}}))?'*"  # x, x_1, θ
    r"|[A-Z]{2,4}|m?\s?\\angle\s*[A-Z]{1,3}|\\overline\{[A-Z]+\}"  # AB, ∠ABC
    r"|[a-zA-Z]\([a-zA-Z0-9]+(?:, ?[a-zA-Z0-9]+)*\)"  # f(x)
    r"|\([a-zA-Z](?:, ?[a-zA-Z])+\)"  # (x, y)
    r"|[a-zA-Z][a-zA-Z ]{2,40}|\\text\{[^{}]*\}"  # Area
)
_CONSTANTS = {"e", "i", "\\pi"}


def read(text: str) -> Node:
    """The structure of a text in the spelling of `notation`; raises `Unreadable`."""
    text = _join_thousands(text.strip())
    if text.endswith("%") and re.fullmatch(r"[\d.,/+\- ]+%", text):
        return Leaf(text[:-1].strip(), percent=True)
    return _read(text)


def _read(text: str) -> Node:
    text = text.strip()
    if not text:
        raise Unreadable("a part is empty")
    if text in ("\\mathbb{R}", "\\R", "\\mathbb R"):
        return REALS
    if text in ("\\emptyset", "\\{\\}", "\\{ \\}"):
        return Items(())
    pieces, signs = _split(text, _SEPARATORS)
    if signs:
        return _items(pieces, signs)
    pieces, signs = _split(text, {"\\cup"})
    if signs:
        return Union(tuple(map(_read, pieces)))
    if re.search(r"\\(?:pm|mp)(?![a-zA-Z])", text):
        both = [
            re.sub(r"\\(pm|mp)(?![a-zA-Z])", lambda m, s=sign: s[m[1] == "mp"], text)
            for sign in ("+-", "-+")
        ]
        return Items(tuple(map(_read, both)))
    pieces, signs = _split(text, _RELATIONS)
    if signs:
        return _relation([piece.strip() for piece in pieces], signs)
    pieces, signs = _split(text, {"\\in"})
    if len(signs) == 1 and _NAME.fullmatch(pieces[0].strip()):
        return _read(pieces[1])
    pieces, signs = _split(text, {":"})
    if signs:
        return Group(":", tuple(map(_read, pieces)), "")
    return _bracketed(text) or _leaf(text)


def _leaf(text: str) -> Leaf:
    if text.endswith("%"):
        return Leaf(text[:-1].strip(), percent=True)
    rest, unit = split_unit(text)
    return Leaf(rest, unit)


def _bracketed(text: str) -> Node | None:
    """What stands in brackets as a whole; None when it does not."""
    tokens = _tokens(text)
    first, last = tokens[0][0], tokens[-1][0]
    if first not in _OPENING or last not in (")", "]", "\\}", "\\rangle"):
        return None
    outermost = sum(token in _OPENING and depth == 1 for token, depth in tokens)
    if first == "{" or outermost > 1 or any(depth == 0 for _, depth in tokens):
        return None
    inner = text[len(first) : -len(last)]
    pieces, signs = _split(inner, {",", ";"})
    if first == "\\{":
        if last != "\\}" or re.search(r"\\mid(?![a-zA-Z])|[|:]", inner):
            raise Unreadable("a set that is described, not listed")
        items = tuple(dict.fromkeys(map(_read, pieces)))  # a set has each element once
        return Items(items)
    if not signs:
        return _read(inner) if (first, last) == ("(", ")") else None
    if first == "\\langle" or last not in (")", "]"):
        raise Unreadable("brackets that are neither a tuple's nor an interval's")
    return Group(first, tuple(map(_read, pieces)), last)


def _items(pieces: list[str], signs: list[str]) -> Node:
    # `1, 2, and 3`: the comma and the word are one separator.
    kept = [
        piece
        for at, piece in enumerate(pieces)
        if piece.strip() or not (0 < at < len(signs) and signs[at].startswith("\\SEP"))
    ]
    items: list[Node] = []
    for node in map(_read, kept):
        items += node.items if isinstance(node, Items) else (node,)
    ranges = [node for node in items if isinstance(node, Group) and node.name]
    if {*signs} == {"\\SEPor"} and len(ranges) == len(items):
        return Union(tuple(items))
    return Items(tuple(items))


def _relation(parts: list[str], signs: list[str]) -> Node:
    if {*signs} == {"="}:
        names = [part for part in parts if _NAME.fullmatch(part) and part not in _CONSTANTS]
        values = [part for part in parts if part not in names]
        return Equation(tuple(parts), tuple(names), tuple(map(_read, values)))
    if not {*signs} <= _ORDERS and signs != ["\\ne"]:
        raise Unreadable("relations of different kinds")
    if all(sign in _FLIPPED for sign in signs):
        parts, signs = parts[::-1], [_FLIPPED[sign] for sign in signs[::-1]]
    if any(sign in _FLIPPED for sign in signs) or len(signs) > 2:
        raise Unreadable("inequalities of different directions")
    named = [at for at, part in enumerate(parts) if re.fullmatch(r"[a-zA-Z]|\\theta", part)]
    if len(named) == 1 and signs != ["\\ne"] and (len(parts) == 2 or named == [1]):
        return _range(parts, signs, named[0])
    if len(parts) > 2:
        raise Unreadable("an inequality of three parts that bounds no variable")
    return Inequality(signs[0], *parts)


def _range(parts: list[str], signs: list[str], at: int) -> Node:
    """The interval that `a < x ≤ b` describes."""
    low = (parts[0], signs[0]) if at == 1 else ("-\\infty", "<")
    high = (parts[at + 1], signs[at]) if at + 1 < len(parts) else ("\\infty", "<")
    brackets = "(" if low[1] == "<" else "[", ")" if high[1] == "<" else "]"
    return Group(brackets[0], (_read(low[0]), _read(high[0])), brackets[1], name=parts[at])


def _tokens(text: str) -> list[tuple[str, int]]:
    """Tokens and how many brackets each stands in; a bracket itself counts as inside."""
    tokens, depth = [], 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in _OPENING or token.startswith("\\begin"):
            depth += 1
        tokens.append((token, depth))
        if token in _CLOSING or token.startswith("\\end"):
            depth -= 1
        if not 0 <= depth <= _DEEPEST:
            break
    if depth:
        raise Unreadable("brackets that do not close, or too many in each other")
    return tokens


def _split(text: str, separators: set[str]) -> tuple[list[str], list[str]]:
    """The pieces between separators outside of brackets, and the separators."""
    pieces, signs = [""], []
    for token, depth in _tokens(text):
        if depth == 0 and token in separators:
            pieces.append("")
            signs.append(token)
        else:
            pieces[-1] += token
    return pieces, signs


def _join_thousands(text: str) -> str:
    """`1,234` as 1234, outside of brackets; with a space behind the comma it is a list."""
    depths = [depth for token, depth in _tokens(text) for _ in token]
    return _THOUSANDS.sub(
        lambda found: found[0] if depths[found.start()] else re.sub("[, ]", "", found[0]), text
    )
