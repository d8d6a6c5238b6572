"""Command lines that tyro reads. Where it would draw a panel, a ValueError says it in one line."""

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
"""Likeness of an option that may have been meant: 1 is the same."""

KINDS = {
    r"invalid literal for int\(\) with base 10: (.*)": "an integer",
    r"could not convert string to float: (.*)": "a number",
}
"""What Python says of a text that is no number, and what would have been one."""


def parse(
    kind: Any, argv: Sequence[str], *, prog: str, description: str | None, default: Any = None
) -> Any:
    """The values of a command line. Raises ValueError, in one line, for what is wrong with it."""
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
    """The message of an error panel, with the nearest of the `known` options where one is not."""
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
    """The options of a dataclass; the config's are those of the command line itself."""
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
    """The options most like one of the words, or like its last part, the nearest first."""

    def likeness(word: str, option: str) -> float:
        word = word.replace("_", "-")
        ends = word.rpartition(".")[2].lstrip("-"), option.rpartition(".")[2].lstrip("-")
        whole = difflib.SequenceMatcher(None, word, option).ratio()
        weight = 0.8 if "." in word else 0.95  # who names a group may have named the right one
        return max(whole, weight * difflib.SequenceMatcher(None, *ends).ratio())

    scores = {option: max((likeness(w, option) for w in words), default=0.0) for option in known}
    near = sorted((o for o in known if scores[o] >= NEAR), key=lambda o: -scores[o])
    return near[:SUGGESTIONS]


def _plain(message: str) -> str:
    """A message about a value, by the name of its option."""
    option = re.fullmatch(r"Error parsing (--\S+): (.*)", message)
    if option:
        for said, expected in KINDS.items():
            if found := re.fullmatch(said, option[2]):
                return f"{option[1]} must be {expected}, got {found[1]}"
        return f"{option[1]}: {option[2]}"
    message = re.sub(r"^Error parsing [A-Z]\w+: ", "", message)  # of all arguments together
    group = re.fullmatch(r"Error parsing config\.([\w.]+): (.*)", message)
    if not group:
        return message
    name, said = group[1], re.sub(r"^\w+Limits\.", "", group[2])
    if said.startswith(f"{name}."):
        return said
    return f"{name}.{said}" if re.match(r"\w+ must be ", said) else f"{name}: {said}"
