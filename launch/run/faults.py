"""One-line messages for faults of the machine and its file system."""

from __future__ import annotations

import errno
import os
import pathlib

import jax

from launch.run import memory

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PLACE = (
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
"""Error numbers for a path that cannot be used."""


def check_writable(option: str, place: pathlib.Path, *, folder: bool) -> None:
    """Raises ValueError if a folder, or else a file, cannot be created or written."""
    there = place.absolute()
    if there.exists() and there.is_dir() != folder:
        kind = "file" if folder else "folder"
        raise ValueError(f"{option} {place} is a {kind}; choose another place")
    while not there.exists():
        there = there.parent
    if not there.is_dir() and there != place.absolute():
        raise ValueError(f"{option} {place}: {there} is a file; choose another place")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{option} {place}: {there} cannot be written; choose another place")


def explain(error: BaseException) -> tuple[str, int] | None:
    """Message and exit status of a fault that a traceback would not explain better, or None."""
    if isinstance(error, MemoryError):
        return memory.advice(str(error) or "Python had none left"), EXIT_FAILED
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return memory.advice(str(error).partition(": ")[2].split("\n")[0].strip(".")), EXIT_FAILED
    if not isinstance(error, OSError):
        return None
    said = f"{error.filename or 'a file of the run'}: {error.strerror}"
    if error.errno in NO_ROOM:
        return said, EXIT_FAILED
    if error.errno in NO_PLACE and error.filename is not None:
        return f"{said}; choose another place, a --run-dir for one", EXIT_BAD_INPUT
    return None
