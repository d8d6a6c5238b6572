"""What the processes of a run exchange: small objects, failures, figures.

Whatever exchanges data between processes has to be called by all of them, in the same order. With
one process nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


class HostFailure(RuntimeError):
    """A process failed; the message names it."""


def gather_objects(value: T) -> list[T]:
    """The `value` of every process, in their order, on each of them.

    For small things that can be pickled: every device holds those of all processes for a moment.
    """
    if jax.process_count() == 1:
        return [value]
    payload = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))[:, 0]
    # A power of two, so that programs are few.
    padded = np.zeros(max(256, 2 ** math.ceil(math.log2(sizes.max()))), np.uint8)
    padded[: len(payload)] = payload
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """What is done inside may fail on one process: then, at its end, it has failed on all.

    Every process raises `HostFailure` with the error of those that failed, instead of waiting for
    them forever in the next exchange. Inside, nothing may be exchanged. An interrupt stays one
    where it came.
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
        raise HostFailure("; ".join(failed)) from failure


Figures = Mapping[str, tuple[float, float]]
"""Name → mean, and what it weighs: the number of trajectories, turns or tokens it was taken over"""


def weighted_means(parts: Sequence[Figures]) -> dict[str, float]:
    """`Σ mean · weight / Σ weight` of each figure over the parts that have it; NaN if none does."""
    names = dict.fromkeys(name for part in parts for name in part)
    result = {}
    for name in names:
        held = [part[name] for part in parts if name in part and part[name][1] > 0]
        whole = sum(weight for _, weight in held)
        result[name] = sum(mean * (weight / whole) for mean, weight in held) if held else math.nan
    return result


def gather_metrics(figures: Figures) -> dict[str, float]:
    """The figures of all processes as means over all of them."""
    return weighted_means(gather_objects(figures))
