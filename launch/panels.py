"""Parses command lines with tyro. Errors are raised as a ValueError of one line, not drawn as
panels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import operator
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

SUGGESTIONS = 3
NEAR = 0.75
"""Least similarity of an option that is suggested; 1 is equality."""

KINDS = {
    r"invalid literal for int\(\) with base 10: (.*)": "an integer",
    r"could not convert string to float: (.*)": "a number",
}
"""Python's message for a text that is not a number → the kind of number it expected."""


def parse(
    kind: Any, argv: Sequence[str], *, prog: str, description: str | None, default: Any = None
) -> Any:
    """The values of a command line. Raises ValueError with one line for an error in it."""
    errors = io.StringIO()
    given = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=list(argv), prog=prog, description=description, **given)
    except SystemExit as stop:
        if stop.code:
            raise ValueError(one_line(errors.getvalue(), [*options(kind)])) from None
        raise


def one_line(panel: str, known: Sequence[str]) -> str:
    """The message of an error panel in one line, with the closest of the `known` options if one is
    unknown.
    """
    # Where stdout cannot show boxes, rules are hyphens, and one more is below the title.
    lines = [line.strip("╭╮╰╯│─ ") for line in panel.splitlines()[1:]]
    lines = [line if line.strip("-") else "" for line in lines]
    lines = list(itertools.dropwhile(operator.not_, lines))
    message = " ".join(itertools.takewhile(bool, lines)).rstrip(".")
    if not message.startswith("Unrecognized options: "):
        return _plain(message)
    words = message.partition(": ")[2].split(", ")
    hint = " or ".join(_nearest([w.partition("=")[0] for w in words if w[:1] == "-"], known))
    return f"{message}{hint and f'; perhaps {hint}'}; --help lists every option"


def options(kind: Any, prefix: str = "--") -> Iterator[str]:
    """The options of a dataclass; the fields of its config are options without a prefix."""
    if not dataclasses.is_dataclass(kind):
        return
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options(hints[field.name], "--" if field.name == "config" else f"{name}.")
        else:
            yield name


def _nearest(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """The options most similar to one of the words, or to its last part, the most similar first."""

    def likeness(word: str, option: str) -> float:
        word = word.replace("_", "-")
        ends = word.rpartition(".")[2].lstrip("-"), option.rpartition(".")[2].lstrip("-")
        whole = difflib.SequenceMatcher(None, word, option).ratio()
        weight = 0.8 if "." in word else 0.95  # a named group may be right
        return max(whole, weight * difflib.SequenceMatcher(None, *ends).ratio())

    scores = {option: max((likeness(w, option) for w in words), default=0.0) for option in known}
    near = sorted((o for o in known if scores[o] >= NEAR), key=lambda o: -scores[o])
    return near[:SUGGESTIONS]


def _plain(message: str) -> str:
    """An error message about a value, under the name of its option."""
    option = re.fullmatch(r"Error parsing (--\S+): (.*)", message)
    if option:
        for said, expected in KINDS.items():
            if found := re.fullmatch(said, option[2]):
                return f"{option[1]} must be {expected}, got {found[1]}"
        return f"{option[1]}: {option[2]}"
    message = re.sub(r"^Error parsing [A-Z]\w+: ", "", message)  # an error of all arguments
    group = re.fullmatch(r"Error parsing config\.([\w.]+): (.*)", message)
    if not group:
        return message
    name, said = group[1], re.sub(r"^\w+Limits\.", "", group[2])
    if said.startswith(f"{name}."):
        return said
    return f"{name}.{said}" if re.match(r"\w+ must be ", said) else f"{name}: {said}"
