"""Folders that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator


def check_free(folder: pathlib.Path, *, marker: str, overwrite: bool) -> None:
    """Raises ValueError unless a folder may be written.

    With `overwrite`, an existing folder may be replaced if it has the file `marker`. One without it
    is never replaced.
    """
    if not folder.exists():
        return
    if not (folder / marker).is_file():
        raise ValueError(
            f"{folder} exists and is no checkpoint, it has no {marker}; choose another folder"
        )
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another folder, or pass overwrite (--overwrite)")


@contextlib.contextmanager
def appearing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder to write into, renamed to `folder` at the end; an error leaves nothing.

    An existing `folder` is replaced.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
