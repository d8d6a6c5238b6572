"""The structure of an answer: lists, tuples, intervals, equations and their combinations.

The whole text is read and nothing is searched for: a text that is not an answer as a whole is none.
"""

from __future__ import annotations

import dataclasses
import itertools
import re

from gtpo_jax.verifiers.judges.nodes import (
    REALS,
    Chain,
    Equation,
    Group,
    Inequality,
    Intersection,
    Items,
    Leaf,
    Node,
    Union,
    Without,
    assigned,
    is_set,
    named,
    names_of,
)
from gtpo_jax.verifiers.judges.units import split_count, split_unit


class Unreadable(Exception):
    """The text has no structure known to this module."""


_DEEPEST = 20  # nested brackets

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
    rf"(?:[A-Za-z]|\\(?:{_GREEK}))'*(?:_(?:\w|\{{[\w\\ ]+\}}))?'*"  # x, x_1, θ
    r"|[A-Z]{2,4}|\|[A-Z]{2}\||m?\s?\\(?:angle|triangle)\s*[A-Z]{1,3}|\\overline\{[A-Z]+\}"  # AB
    r"|\\(?:bar|hat|vec|tilde|dot|overrightarrow)\s*\{?[a-zA-Z]+\}?(?:_\w)?"
    r"|[a-zA-Z](?:'+|\^\{-1\})?\([a-zA-Z0-9]+(?:, ?[a-zA-Z0-9]+)*\)"  # f(x), f'(x)
    r"|[PE]\([A-Z]\s*(?:\\cap|\\cup|\\mid|\|)\s*[A-Z]\)|\\frac\s*\{d[a-z]\}\s*\{d[a-z]\}"
    rf"|\\(?:sin|cos|tan)\s*(?:[A-C]|\\(?:{_GREEK}))"
    r"|\([a-zA-Z](?:, ?[a-zA-Z])+\)"  # (x, y)
    r"|[a-zA-Z][a-zA-Z ]{2,40}|\\text\{[^{}]*\}"  # Area
)
_CONSTANTS = {"e", "i", "\\pi"}
_VARIABLE = re.compile(rf"(?:[A-Za-z]|\\(?:{_GREEK}))'*(?:_(?:\w|\{{\w+\}}))?")
_BAR = re.compile(r"\\mid(?![a-zA-Z])|\||:")


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
    for sign, kind in (("\\cup", Union), ("\\cap", Intersection)):
        pieces, signs = _split(text, {sign})
        if signs:
            return kind(tuple(map(_read, pieces)))
    pieces, signs = _split(text, {"\\setminus", "\\backslash"})
    if len(signs) == 1:
        return Without((_read(pieces[0]), _read(pieces[1])))
    if re.search(r"\\(?:pm|mp)(?![a-zA-Z])", text):
        both = [
            re.sub(r"\\(pm|mp)(?![a-zA-Z])", lambda m, s=sign: s[m[1] == "mp"], text)
            for sign in ("+-", "-+")
        ]
        return _listed(list(map(_read, both)))
    pieces, signs = _split(text, _RELATIONS)
    if signs:
        return _relation([piece.strip() for piece in pieces], signs)
    pieces, signs = _split(text, {"\\in"})
    if len(signs) == 1 and _NAME.fullmatch(pieces[0].strip()):
        return named(_read(pieces[1]), pieces[0].strip())
    pieces, signs = _split(text, {":"})
    if signs:
        return Group(":", tuple(map(_read, pieces)), "")
    return _bracketed(text) or _leaf(text)


def _leaf(text: str) -> Leaf:
    if text.endswith("%"):
        return Leaf(text[:-1].strip(), percent=True)
    rest, unit = split_unit(text)
    return Leaf(rest, unit) if unit else Leaf(*split_count(text))


def _bracketed(text: str) -> Node | None:
    """The node of a text that is bracketed as a whole; None for any other text."""
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
        if last != "\\}":
            raise Unreadable("braces that do not close")
        described = _described(inner)
        if described is not None:
            return described
        items = tuple(dict.fromkeys(map(_read, pieces)))  # a set has each element once
        return Items(items)
    if not signs:
        return _read(inner) if (first, last) == ("(", ")") else None
    if first == "\\langle" or last not in (")", "]"):
        raise Unreadable("brackets that are neither a tuple's nor an interval's")
    return Group(first, tuple(map(_read, pieces)), last)


def _described(inner: str) -> Node | None:
    """The set `x | condition`; None when the text lists elements. The name is bound in it."""
    depths = [depth for token, depth in _tokens(inner) for _ in token]
    bars = [bar for bar in _BAR.finditer(inner) if depths[bar.start()] == 0]
    if not bars:
        return None
    element, condition = inner[: bars[0].start()].strip(), inner[bars[0].end() :]
    name = re.sub(r"\\in\s*(?:\\mathbb\s*\{R\}|\\mathbb R|\\R)$", "", element).strip()
    if not _VARIABLE.fullmatch(name):
        if "," in inner[: bars[0].start()] or len(bars) % 2 == 0:
            return None  # `{|x|, 1}`
        raise Unreadable("a set described by more than one variable")
    said = _read(condition)
    if names_of(said) != {name} and not _says_values(said, name):
        raise Unreadable("a condition on something else")
    return named(said, "")


def _says_values(node: Node, name: str) -> bool:
    parts = node.items if isinstance(node, Items) else (node,)
    return all(isinstance(part, Equation) and part.names == (name,) for part in parts)


def _items(pieces: list[str], signs: list[str]) -> Node:
    # `1, 2, and 3`: the comma and the word are one separator.
    kept = [
        at
        for at, piece in enumerate(pieces)
        if piece.strip() or not (0 < at < len(signs) and signs[at].startswith("\\SEP"))
    ]
    between = [signs[at - 1] for at in kept[1:]]
    nodes = [_read(pieces[at]) for at in kept]
    outer = next((sign for sign in ("\\SEPor", ";") if sign in between), None)
    if outer and {*between} != {outer}:  # `x = 1, y = 2 or x = 3, y = 4`
        starts = [0, *(at + 1 for at, sign in enumerate(between) if sign == outer), len(nodes)]
        parts = [nodes[low:high] for low, high in itertools.pairwise(starts)]
        if all(len(assigned(part) or ()) > 1 for part in parts):
            return Items(tuple(Items(tuple(part)) for part in parts))
        if "\\SEPor" in between and all(map(is_set, nodes)):
            return Union(tuple(map(_listed, parts)))
    together = any(map(is_set, nodes)) or len(assigned(nodes) or ()) > 1
    if {*between} == {"\\SEPor"} and together and all(map(_may_be_set, nodes)):
        return Union(tuple(nodes))
    return _listed(nodes)


def _listed(nodes: list[Node]) -> Node:
    """Joins several nodes into one; conditions on one variable apply together."""
    if isinstance(nodes[0], Without) and names_of(nodes[0]):
        # `x ≠ 1, 2`
        whole = nodes[0].items[0]
        nodes = [Without((whole, node)) if isinstance(node, Leaf) else node for node in nodes]
    names = set().union(*map(names_of, nodes))
    if len(nodes) > 1 and all(map(is_set, nodes)) and len(names) == 1:
        return Intersection(tuple(nodes))
    items: list[Node] = []
    for node in nodes:
        items += node.items if isinstance(node, Items) else (node,)
    solutions = _solutions(items)
    return Items(tuple(solutions or items))


def _solutions(items: list[Node]) -> list[Node] | None:
    """`x = 1, y = 2, x = 3, y = 4` as two solutions of two values; None for all other lists."""
    for size in range(2, len(items) // 2 + 1):
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        values = [assigned(part) for part in parts]
        if values[0] and all(value and value.keys() == values[0].keys() for value in values):
            return [Items(tuple(part)) for part in parts]
    return None


def _may_be_set(node: Node) -> bool:
    return is_set(node) or bool(assigned([node]))


def _relation(parts: list[str], signs: list[str]) -> Node:
    if {*signs} == {"="}:
        names = [part for part in parts if _NAME.fullmatch(part) and part not in _CONSTANTS]
        values = [part for part in parts if part not in names]
        return Equation(tuple(parts), tuple(names), tuple(map(_read, values)))
    if signs == ["\\ne"]:
        return _unequal(*parts)
    if not {*signs} <= {*_ORDERS, "="}:
        raise Unreadable("relations of different kinds")
    if {*signs} & {*_FLIPPED}:
        if {*signs} & {*_FLIPPED.values()}:
            raise Unreadable("inequalities of different directions")
        parts, signs = parts[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    return _ordered(parts, signs)


def _ordered(parts: list[str], signs: list[str]) -> Node:
    """The node of `a < b ≤ c`: of the variable that it bounds, or of all of them."""
    named = [at for at, part in enumerate(parts) if is_variable(part)]
    others = [part for at, part in enumerate(parts) if [at] != named]
    bounds = len(named) == 1 and (len(parts) == 2 or (len(parts) == 3 and named == [1]))
    if bounds and "=" not in signs and not any(map(_has_variable, others)):
        return _range(parts, signs, named[0])
    if len(parts) == 2:
        return Inequality(signs[0], *parts)
    levels = [[parts[0]]]
    for sign, part in zip(signs, parts[1:], strict=True):
        if sign == "=":
            levels[-1].append(part)
        else:
            levels.append([part])
    return Chain(tuple(map(tuple, levels)), tuple(sign for sign in signs if sign != "="))


def _unequal(left: str, right: str) -> Node:
    """`x ≠ 2` as all numbers but 2; between expressions, an inequality."""
    if is_variable(right):
        left, right = right, left
    if is_variable(left) and not _has_variable(right):
        return Without((dataclasses.replace(REALS, name=left), _read(right)))
    return Inequality("\\ne", left, right)


def is_variable(text: str) -> bool:
    return _VARIABLE.fullmatch(text) is not None and text not in _CONSTANTS


def _has_variable(text: str) -> bool:
    plain = re.sub(r"\\(?!(?:" + _GREEK + r")(?![a-zA-Z]))[a-zA-Z]+", " ", text)
    return any(is_variable(found[0]) for found in _VARIABLE.finditer(plain))


def _range(parts: list[str], signs: list[str], at: int) -> Node:
    """The interval that `a < x ≤ b` describes."""
    low = (parts[0], signs[0]) if at == 1 else ("-\\infty", "<")
    high = (parts[at + 1], signs[at]) if at + 1 < len(parts) else ("\\infty", "<")
    brackets = "(" if low[1] == "<" else "[", ")" if high[1] == "<" else "]"
    return Group(brackets[0], (_read(low[0]), _read(high[0])), brackets[1], name=parts[at])


def _tokens(text: str) -> list[tuple[str, int]]:
    """Tokens with their bracket depth; a bracket itself counts as inside."""
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
