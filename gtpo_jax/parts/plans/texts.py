"""Texts of trajectories, for prompts that hold an earlier attempt."""

from __future__ import annotations

import re
import string

from gtpo_jax.parts.facts import seen_text
from gtpo_jax.types import Trajectory, Turn

_END = re.compile(r"(?:\s*<\|[^|<>]*\|>)+\s*$")
GAP = " … "


def said(turn: Turn) -> str:
    """The text of a turn without the marker that ended it."""
    return _END.sub("", turn.text)


def attempt(trajectory: Trajectory, longest: int) -> str:
    """The turns of a trajectory and the output they saw, as a text of at most `longest` characters.

    A longer text loses its middle.
    """
    parts: list[str] = []
    for turn in trajectory.turns:
        parts.append(said(turn).strip())
        if turn.results:
            parts.append(f"Output: {seen_text(turn)}")
    return shortened("\n".join(part for part in parts if part), longest)


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and its end around a gap, at most `longest` characters."""
    if len(text) <= longest:
        return text
    room = max(longest - len(GAP), 0)
    head = -(-room // 2)
    return text[:head] + GAP[: longest - room] + text[len(text) - (room - head) :]


def fill(template: str, **values: str) -> str:
    """The template with the values in the place of `{name}`; the values may hold braces."""
    return string.Formatter().vformat(template, (), values)


def check_template(name: str, template: str, *fields: str) -> None:
    """Raises `ValueError` unless the template names exactly these fields."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{name} {template!r}: {error}; write a brace of the text twice") from None
    if {field for _, field, _, _ in pieces if field is not None} != set(fields):
        wanted = " and ".join(f"{{{field}}}" for field in fields)
        raise ValueError(
            f"{name} must hold {wanted} and no other field, got {template!r}; write a brace of the"
            " text twice"
        )
