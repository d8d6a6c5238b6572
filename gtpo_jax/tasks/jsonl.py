"""Reads records in JSON: one object per line, or one list of objects."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

from gtpo_jax.language import files
from gtpo_jax.tasks.mappings.fields import Record


def decode(text: str) -> object:
    """The value of a JSON text. Raises `ValueError` with the reason and, if it has lines, the line.

    NaN and Infinity are accepted although they are not JSON, since pandas writes NaN for a missing
    value; the reader of the field decides what it means.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}: " if "\n" in text else ""
        raise ValueError(f"{where}not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def read_lines(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Objects with their line numbers; empty lines are skipped."""
    return _lines(path, files.read_text(path))


def read_json(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Objects of one list with their numbers, or else objects of lines."""
    text = files.read_text(path)
    if not text.lstrip().startswith("["):
        yield from _lines(path, text)
        return
    try:
        values = decode(text)
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
    assert isinstance(values, list)
    for number, value in enumerate(values, 1):
        yield f"record {number}", _object(path, f"record {number}", value)


def _lines(path: pathlib.Path, text: str) -> Iterator[tuple[str, Record]]:
    # Not `splitlines`, which also splits at separators that JSON strings may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"line {number}"
            try:
                value = decode(line)
            except ValueError as error:
                raise ValueError(f"{path}, {place}: {error}") from None
            yield place, _object(path, place, value)


def _integer(digits: str) -> int:
    most = sys.get_int_max_str_digits()
    if most and len(digits.lstrip("-")) > most:
        raise ValueError(
            f"an integer of {len(digits):,} digits, and {most:,} are the most; write it as a text"
        )
    return int(digits)


def _object(path: pathlib.Path, place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{path}, {place}: expected an object, got {type(value).__name__}")
    return value
