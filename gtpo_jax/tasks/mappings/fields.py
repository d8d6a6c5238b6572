"""Values of a record, or the reason why they are not what they have to be."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import re
from typing import Any

Record = collections.abc.Mapping[str, Any]
"""Field → value, as JSON, Parquet or a Hugging Face data set gives it."""

_SHOWN = 80
_ALSO_CALLED = {
    "question": ("prompt", "problem", "instruction", "input", "query"),
    "problem": ("question", "prompt", "instruction", "input", "query"),
    "answer": ("final_answer", "target", "output", "response", "solution", "label"),
}
"""Names that other data sets give to a field."""
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A record that is no problem of the data set asked for, and why."""

    reason: str


def shown(value: object) -> str:
    """A value in a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def is_missing(value: object) -> bool:
    """True for null and for NaN, which tables hold where a record has no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: object, name: str) -> str:
    """A text, or a finite number as text."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a text or a number, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` must be a text or a finite number, got {value}")
    return str(value)


def text(record: Record, *names: str) -> str:
    """The first of the fields that the record has, stripped: a text or a number, not empty."""
    name = _present(record, names)
    value = record.get(name)
    found = "" if value is None else as_text(value, name).strip()
    if not found:
        hint = _hint(record, name)
        raise ValueError(f"`{name}` must be a text or a number, got {shown(value)}{hint}")
    return found


def raw(record: Record, *names: str) -> str:
    """The first of the fields that the record has, as it is: a program, whose spaces matter."""
    name = _present(record, names)
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text, got {shown(value)}")
    return value


def optional(record: Record, *names: str) -> str:
    """The first of the fields that the record has, neither missing nor blank; or empty."""
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
    """A number without separators of thousands and without `.0`; another text as it is."""
    bare = value.replace(",", "") if _THOUSANDS.fullmatch(value) else value
    whole = re.fullmatch(r"\+?(-?[0-9]+)(\.0*)?", bare)
    return str(int(whole[1])) if whole else bare


def _present(record: Record, names: tuple[str, ...]) -> str:
    """The first name that the record has; where it has none, the first of all."""
    return next((name for name in names if name in record), names[0])


def _hint(record: Record, name: str) -> str:
    """The option that reads another field instead, where the record has a likely one."""
    other = next((each for each in _ALSO_CALLED.get(name, ()) if each in record), None)
    if name in record or other is None:
        return ""
    return f"; --task.fields {name}={other} reads the field `{other}`"
