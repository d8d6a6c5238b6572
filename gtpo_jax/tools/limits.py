"""The limits of one tool call."""

from __future__ import annotations

import dataclasses
import math

from gtpo_jax.settings import Changeable

KIB = 1024
MIB = 1024 * KIB


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolLimits:
    """Limits of one tool call, or of all calls of a session together where a limit says so.

    A call is one process with at most `threads` threads.
    """

    wall_seconds: float = 5.0  # seconds of wall time, after which a call is killed
    cpu_seconds: int = 5  # seconds of CPU time, whole because the kernel counts them so
    memory_bytes: int = 512 * MIB  # bytes of address space beyond the preloaded interpreter's
    output_bytes: int = 16 * KIB  # bytes kept of stdout and of stderr each: head and tail
    runaway_bytes: int = MIB  # bytes written to stdout or stderr at which a call is killed
    file_bytes: int = 16 * MIB  # largest size of one file, in bytes
    scratch_bytes: int = 64 * MIB  # total size of the files of a call, or of a session, in bytes
    scratch_files: int = 4096  # number of files and folders of a call, or of a session
    threads: int = 64  # number of threads alive at once
    open_files: int = 64  # number of open file descriptors
    guard_seconds: Changeable[float] = 5.0  # seconds to end a call; then its machine is hung

    def __post_init__(self) -> None:
        check_seconds("ToolLimits.wall_seconds", self.wall_seconds)
        check_seconds("ToolLimits.guard_seconds", self.guard_seconds)
        # The lower bounds leave room for what an interpreter needs before it runs user code.
        _check_integer("cpu_seconds", self.cpu_seconds, 1)
        _check_integer("memory_bytes", self.memory_bytes, 32 * MIB)
        _check_integer("output_bytes", self.output_bytes, 2)
        _check_integer("runaway_bytes", self.runaway_bytes, self.output_bytes)
        _check_integer("file_bytes", self.file_bytes, 0)
        _check_integer("scratch_bytes", self.scratch_bytes, 1)
        _check_integer("scratch_files", self.scratch_files, 16)
        _check_integer("threads", self.threads, 1)
        _check_integer("open_files", self.open_files, 16)


def _check_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"ToolLimits.{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"ToolLimits.{name} must be at least {least}, got {value}")


def check_seconds(name: str, value: float) -> None:
    """Raises unless `value` is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"{name} must be positive and finite, got {value}; there is no 'unlimited'"
        )
