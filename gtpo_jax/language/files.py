"""Files as they lie on disk, whatever they hold."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import pathlib
from collections.abc import Callable
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer of Git LFS begins: a text of about 130 bytes in the place of a large file."""

COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Suffixes of compressed files, and what opens them."""

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark begins alike
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def git_lfs_pointer(path: str | pathlib.Path) -> bool:
    """True for a pointer of Git LFS: the file itself has not been fetched."""
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def refuse_git_lfs_pointer(path: str | pathlib.Path) -> None:
    """Raises ValueError, with the way out, for a pointer of Git LFS."""
    if git_lfs_pointer(path):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the file itself;"
            " run `git lfs pull` in its repository, or download the file again"
        )


def uncompressed(path: pathlib.Path) -> pathlib.Path:
    """The path without the suffix of compression that it may have."""
    return path.with_suffix("") if path.suffix in COMPRESSED else path


def read_text(path: str | pathlib.Path) -> str:
    """The text of a file in UTF-8, decompressed by its suffix, without a byte order mark.

    Raises ValueError with the path and the way out for a file that cannot be read or decompressed,
    for another encoding, and for a pointer of Git LFS.
    """
    path = pathlib.Path(path)
    refuse_git_lfs_pointer(path)
    try:
        with COMPRESSED.get(path.suffix, open)(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path}: {reason}") from None
    for mark, encoding in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise ValueError(_not_utf8(path, f"it is {encoding}", encoding))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"line {line} has the byte 0x{data[error.start]:02x}"
        raise ValueError(_not_utf8(path, reason, "ISO-8859-1")) from None


def _not_utf8(path: pathlib.Path, reason: str, encoding: str) -> str:
    return (
        f"{path} is not UTF-8: {reason}; convert it first, as"
        f" `iconv -f {encoding} -t UTF-8` does from {encoding}"
    )
