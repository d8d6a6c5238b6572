"""The limits of one tool call."""

from __future__ import annotations

import dataclasses
import math

from gtpo_jax.settings import Changeable

KIB = 1024
MIB = 1024 * KIB


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolLimits:
    """Limits of one tool call, or of all calls of a session together where a comment says so.

    Sizes are in bytes, times in seconds. A call is one process with at most `threads` threads.
    """

    wall_seconds: float = 5.0  # from the start of the call to its forced end
    cpu_seconds: int = 5  # of processor time; the kernel counts whole seconds
    memory_bytes: int = 512 * MIB  # address space on top of that of the preloaded interpreter
    output_bytes: int = 16 * KIB  # kept of stdout and of stderr each: head and tail
    runaway_bytes: int = MIB  # a call that writes this much to either stream is ended
    file_bytes: int = 16 * MIB  # size of any one file
    scratch_bytes: int = 64 * MIB  # of all files of a call, or of a session
    scratch_files: int = 4096  # files and folders of a call, or of a session
    threads: int = 64  # alive at the same time
    open_files: int = 64  # descriptors
    guard_seconds: Changeable[float] = 5.0  # for ending a call, before its machine counts as hung

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
