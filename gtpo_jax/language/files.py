"""Reads text files: compression, encoding, and pointers of Git LFS."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import pathlib
from collections.abc import Callable
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer, a text of about 130 bytes in place of a large file."""

COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Suffix of a compressed file → function that opens it."""

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark is a prefix of this one
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def git_lfs_pointer(path: str | pathlib.Path) -> bool:
    """True if the path is a Git LFS pointer: the file itself has not been fetched."""
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def refuse_git_lfs_pointer(path: str | pathlib.Path) -> None:
    """Raises ValueError, with the way out, if the path is a Git LFS pointer."""
    if git_lfs_pointer(path):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the file itself;"
            " run `git lfs pull` in its repository, or download the file again"
        )


def uncompressed(path: pathlib.Path) -> pathlib.Path:
    """The path without its suffix of compression, if it has one."""
    return path.with_suffix("") if path.suffix in COMPRESSED else path


def read_text(path: str | pathlib.Path) -> str:
    """Text of a UTF-8 file, decompressed according to its suffix, without a byte order mark.

    Raises ValueError, with the path and the way out, if the file cannot be read or decompressed, if
    it has another encoding, or if it is a Git LFS pointer.
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
