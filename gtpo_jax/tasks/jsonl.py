"""Records in JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

from gtpo_jax.tasks.mappings.fields import Record


def read_lines(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Objects with their lines; empty lines are none."""
    # Not `splitlines`: it also breaks at separators that may stand inside a JSON text.
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            place = f"line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, {place}: not JSON ({error.msg} at column {error.colno})"
                ) from None
            yield place, _object(path, place, value)


def read_json(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Objects of one list, with their numbers, or else of lines."""
    text = _read(path)
    if not text.lstrip().startswith("["):
        yield from read_lines(path)
        return
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})"
        ) from None
    for number, value in enumerate(values, 1):
        yield f"record {number}", _object(path, f"record {number}", value)


def _object(path: pathlib.Path, place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{path}, {place}: expected an object, got {type(value).__name__}")
    return value


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read problems from {path}: {error}") from None
