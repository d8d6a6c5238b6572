"""`multiprocessing` in a call: its thread pools work, and all else raises a clear error.

A call is one process. Unpatched, `multiprocessing` would complain of missing files, as its locks
and shared memory have names below `/dev/shm`, which a call lacks. The kernel refuses further
processes in any case; the patch serves the error message.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import threading
from multiprocessing import heap, pool, process, queues
from typing import NoReturn

_REASON = "no process can be started or share memory here; use threads"


def refuse_processes() -> None:
    """Makes everything of `multiprocessing` that needs a second process raise `PermissionError`."""
    process.BaseProcess.start = _refuse
    heap.Arena.__init__ = _refuse
    with contextlib.suppress(ImportError):
        locks = importlib.import_module("_multiprocessing")
        lock = type("SemLock", (locks.SemLock,), {"__new__": _refuse})
        setattr(locks, "SemLock", lock)  # noqa: B010, the module has no stubs
    with contextlib.suppress(ImportError):
        setattr(importlib.import_module("_posixshmem"), "shm_open", _refuse)  # noqa: B010
    pool.ThreadPool.__init__ = _begin_threads


def _refuse(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EPERM, _REASON)


class _Threads:
    """The context of a thread pool, whose queue uses locks of threads."""

    Lock = threading.Lock

    @classmethod
    def SimpleQueue(cls) -> queues.SimpleQueue:
        return queues.SimpleQueue(ctx=cls)


def _begin_threads(
    self: pool.ThreadPool, processes: object = None, initializer: object = None, initargs=()
) -> None:
    pool.Pool.__init__(self, processes, initializer, initargs, context=_Threads)  # pyright: ignore
