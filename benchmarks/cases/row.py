"""A case, the result of replaying it, and whether the two agree."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LINE_OR_RECORD = re.compile(r"\b(?:line|record|row) \d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A case from a file of reports: `input` is replayed and should give `expected`."""

    area: str
    kind: str
    input: Mapping[str, Any]
    expected: Any
    place: str  # the file and the line

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the case: its area, and its input as JSON."""
        return self.area, json.dumps(self.input, sort_keys=True, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of an operation that accepts or refuses its input.

    `crashed`: it ended in an exception that is not a message for a user.
    """

    accepted: bool
    text: str = ""  # what was read, or the error
    count: int | None = None  # number of things read
    crashed: bool = False


Adapter = Callable[[Mapping[str, Any]], Any]
"""Replays an input. The result is a text, a mapping or an `Outcome`; None: the input is prose."""


def read_rows(path: pathlib.Path) -> list[Row]:
    """The cases of a file: one JSON object per line with `area`, `kind`, `input` and `expected`."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            record = json.loads(line)
            fields = {name: record[name] for name in ("area", "kind", "input", "expected")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{place}: expected area, kind, input, expected; {error!r}") from None
        rows.append(Row(**fields, place=place))
    if not rows:
        raise ValueError(f"{path} holds no case; expected one JSON object a line")
    return rows


def attempt(operation: Callable[[], Sequence[Any]]) -> Outcome:
    """The outcome of reading: a `ValueError` of one line is an error for the user."""
    try:
        found = operation()
    except ValueError as error:
        return Outcome(accepted=False, text=str(error), crashed="\n" in str(error))
    except Exception as error:
        return Outcome(accepted=False, text=f"{type(error).__name__}: {error}", crashed=True)
    return Outcome(accepted=True, text=str(found)[:500], count=len(found))


def agrees(expected: Any, got: Any) -> bool:
    """True if the result of a case is the expected one.

    - A mapping names fields of the result; `X holds` names a part of the field X.
    - `the text names X`: the result contains X.
    - For an outcome, alternatives are separated by `, or`: `an error …` means refused, others mean
      accepted. An error that `names the line`, the row, the file or the field does so.
    - Otherwise the two are equal.
    """
    if isinstance(expected, Mapping):
        return isinstance(got, Mapping) and all(_field(got, *pair) for pair in expected.items())
    if isinstance(got, Outcome):
        return not got.crashed and any(_meets(part, got) for part in expected.split(", or "))
    if isinstance(expected, str) and expected.startswith("the text names "):
        return expected.removeprefix("the text names ") in str(got)
    return bool(expected == got)


def _field(got: Mapping[str, Any], name: str, value: Any) -> bool:
    if name.endswith(" holds"):
        return value in (got.get(name.removesuffix(" holds")) or "")
    return name in got and got[name] == value


def _meets(alternative: str, got: Outcome) -> bool:
    if not re.match(r"(?:an )?error|refused", alternative):
        number = re.match(r"(\d+|one) \w+s?\b", alternative)
        wanted = None if number is None else 1 if number[1] == "one" else int(number[1])
        return got.accepted and wanted in (None, got.count)
    named = {
        "line": LINE_OR_RECORD.search(got.text),
        "row": LINE_OR_RECORD.search(got.text),
        "field": re.search(r"[`']\w+[`']|\b(?:answer|id)\b", got.text),
        "git lfs pull": "git lfs pull" in got.text,
    }
    return not got.accepted and all(named[what] for what in named if what in alternative)
