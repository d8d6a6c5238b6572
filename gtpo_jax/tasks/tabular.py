"""Reads tables of comma- or tab-separated values; the first row names the fields."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator

from gtpo_jax.language import files
from gtpo_jax.tasks.mappings.fields import Record

_LONGEST = 2**24
"""Maximum number of characters of a field."""


def read_csv(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Rows of comma-separated values, each with the number of its last line."""
    return _rows(path, ",")


def read_tsv(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Rows of tab-separated values, each with the number of its last line."""
    return _rows(path, "\t")


def _rows(path: pathlib.Path, delimiter: str) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(_LONGEST)
    reader = csv.reader(
        io.StringIO(files.read_text(path), newline=""), delimiter=delimiter, strict=True
    )
    names: list[str] = []
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if not row:
                continue
            if not names:
                names = row
                if len({*names}) < len(names) or not all(name.strip() for name in names):
                    raise ValueError(f"{path}, {place}: the columns need names that differ")
            elif len(row) != len(names):
                raise ValueError(
                    f"{path}, {place}: {len(row)} values for {len(names)} columns;"
                    " put values that hold a separator in quotes"
                )
            else:
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
