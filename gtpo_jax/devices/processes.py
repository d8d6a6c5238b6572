"""Exchange between the processes of a run: small objects and failures.

All processes must call these functions, in the same order. With one process nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


class ProcessFailure(RuntimeError):
    """A process failed; the message names it."""


def gather_objects(value: T) -> list[T]:
    """Returns the `value` of every process, in process order, on every process.

    For small picklable objects: every device briefly holds the values of all processes.
    """
    if jax.process_count() == 1:
        return [value]
    payload = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))[:, 0]
    # A power of two, so that few shapes are compiled.
    padded = np.zeros(max(256, 2 ** math.ceil(math.log2(sizes.max()))), np.uint8)
    padded[: len(payload)] = payload
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """Makes an error in the block on one process an error on all of them.

    At the end of the block every process raises `ProcessFailure` with the errors of those that
    failed; otherwise the others would wait for them forever in the next exchange. The block itself
    must not exchange anything. An interrupt is re-raised as such on the process that received it.
    """
    if jax.process_count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except BaseException as error:
        failure = error
    reports = gather_objects(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None and not isinstance(failure, Exception):
        raise failure
    failed = [
        f"process {process} of {len(reports)} failed in {what}: {report}"
        for process, report in enumerate(reports)
        if report is not None
    ]
    if failed:
        raise ProcessFailure("; ".join(failed)) from failure
