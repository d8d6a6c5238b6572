"""Files as they lie on disk, whatever they hold."""

from __future__ import annotations

import pathlib

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer of Git LFS begins: a text of about 130 bytes in the place of a large file."""


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
