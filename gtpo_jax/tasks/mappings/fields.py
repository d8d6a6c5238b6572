"""Reads fields of a record; each error names the field and the reason."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import re
from typing import Any

Record = collections.abc.Mapping[str, Any]
"""Field → value, as read from JSON, Parquet or a Hugging Face data set."""

_SHOWN = 80
_ALSO_CALLED = {
    "question": ("prompt", "problem", "instruction", "input", "query"),
    "problem": ("question", "prompt", "instruction", "input", "query"),
    "answer": ("final_answer", "target", "output", "response", "solution", "label"),
}
"""Field → names that other data sets use for it."""
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """The reason why a record is not a problem of the requested data set."""

    reason: str


def shown(value: object) -> str:
    """A value for an error message: one short line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def is_missing(value: object) -> bool:
    """True for null and for NaN, which tables use for missing values."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: object, name: str) -> str:
    """A text, or a finite number as text."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a text or a number, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` must be a text or a finite number, got {value}")
    return str(value)


def text(record: Record, *names: str) -> str:
    """First of these fields that the record has: a text or number, stripped and not empty."""
    name = _present(record, names)
    value = record.get(name)
    result = "" if value is None else as_text(value, name).strip()
    if not result:
        hint = _hint(record, name)
        raise ValueError(f"`{name}` must be a text or a number, got {shown(value)}{hint}")
    return result


def raw(record: Record, *names: str) -> str:
    """First of these fields that the record has, unchanged: white space matters in a program."""
    name = _present(record, names)
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text, got {shown(value)}")
    return value


def optional(record: Record, *names: str) -> str:
    """First of these fields that is neither missing nor blank; empty if there is none."""
    for name in names:
        value = record.get(name)
        if not is_missing(value) and not (isinstance(value, str) and not value.strip()):
            return text(record, name)
    return ""


def inside(record: Record, name: str) -> Record:
    """A field that has fields of its own."""
    value = record.get(name)
    if not isinstance(value, collections.abc.Mapping):
        raise ValueError(f"`{name}` must be an object, got {shown(value)}")
    return value


def texts(record: Record, name: str) -> list[str]:
    """A field that is a list of texts."""
    value = record.get(name)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{name}` must be a list of texts, got {shown(value)}")
    return list(value)


def number(value: str) -> str:
    """A number without thousands separators and `.0`; other texts unchanged."""
    bare = value.replace(",", "") if _THOUSANDS.fullmatch(value) else value
    whole = re.fullmatch(r"\+?(-?[0-9]+)(\.0*)?", bare)
    return str(int(whole[1])) if whole else bare


def _present(record: Record, names: tuple[str, ...]) -> str:
    """First name that the record has, or the first name if it has none."""
    return next((name for name in names if name in record), names[0])


def _hint(record: Record, name: str) -> str:
    """Suggests the option that reads another field instead, if the record has a likely one."""
    other = next((each for each in _ALSO_CALLED.get(name, ()) if each in record), None)
    if name in record or other is None:
        return ""
    return f"; --task.fields {name}={other} reads the field `{other}`"
