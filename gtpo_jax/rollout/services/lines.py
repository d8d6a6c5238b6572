"""A file of JSON lines that only grows, and that a killed run may leave with half a line."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable


class LineFile:
    """Appends objects to a file, one a line."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._checked = False

    def read(self) -> list[dict]:
        """All objects; half a line at the end, which a killed run left, is no object."""
        if not self.path.exists():
            return []
        *whole, _ = self.path.read_bytes().split(b"\n")
        try:
            return [json.loads(line) for line in whole]
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged: {error}; restore it, or remove it") from None

    def append(self, *objects: dict) -> None:
        """Adds objects at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if not self._checked:
                self._checked = True
                file.truncate(self._whole())
            file.write(_lines(objects))

    def rewrite(self, objects: Iterable[dict]) -> None:
        """Replaces the content."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_bytes(_lines(objects))
        temporary.replace(self.path)

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        return self.path.read_bytes().rfind(b"\n") + 1


def _lines(objects: Iterable[dict]) -> bytes:
    return b"".join(json.dumps(one).encode("ascii") + b"\n" for one in objects)
