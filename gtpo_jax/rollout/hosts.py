"""Rollouts on several hosts: each process produces whole groups, on its own devices.

    mesh = sharding.make_mesh(...)  # over the devices of all processes
    engine = RolloutEngine(..., mesh=sharding.local_mesh(mesh))
    params = sharding.localize(state.params, mesh)
    with hosts.together("the rollout"):
        trajectories, _ = engine.run(params, hosts.deal(requests), seed=seed, step=step)
        turn_credit = credit.assign(hosts.number_groups(packing.episode_batch(...)), ...)
        batch = packing.pack(...)
    state, metrics = update(state, hosts.join_batch(batch, mesh))

Whatever exchanges data between processes has to be called by all of them, in the same order. With
one process nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from gtpo_jax import packing, sharding
from gtpo_jax.rollout.dynamic import RunFn
from gtpo_jax.rollout.progress import RolloutStats, total_stats
from gtpo_jax.rollout.slots import Request
from gtpo_jax.types import EpisodeBatch, TokenBatch, Trajectory

T = TypeVar("T")


class HostFailure(RuntimeError):
    """A process failed; the message names it."""


def deal(
    requests: Sequence[Request], *, processes: int | None = None, process: int | None = None
) -> list[Request]:
    """The requests of one of so many processes, by default of this one, in their order.

    A group goes to one process whole: the largest first, each to the process with the fewest
    trajectories so far. So two processes differ by no more than the largest group.
    """
    processes = jax.process_count() if processes is None else processes
    process = jax.process_index() if process is None else process
    if not 0 <= process < processes:
        raise ValueError(f"process {process} is none of {processes}; they count from 0")
    sizes: dict[int, int] = {}
    for request in requests:
        sizes[request.group] = sizes.get(request.group, 0) + 1
    loads, home = [0] * processes, {}
    for group in sorted(sizes, key=lambda group: -sizes[group]):
        home[group] = loads.index(min(loads))
        loads[home[group]] += sizes[group]
    return [request for request in requests if home[request.group] == process]


def share(
    run: RunFn, requests: Sequence[Request], what: str = "the rollout"
) -> tuple[list[Trajectory], RolloutStats]:
    """The trajectories of all requests in their order, on every process; each ran its part of them.

    `run` may exchange nothing. The trajectories travel as they are: about 20 bytes a token.
    """
    if jax.process_count() == 1:
        return run(requests)
    with together(what):
        part = run(deal(requests))
    parts = gather_objects(part)
    found = {(t.group, t.sample): t for trajectories, _ in parts for t in trajectories}
    stats = total_stats([stats for _, stats in parts])
    return [found[request.group, request.sample] for request in requests], stats


def number_groups(episodes: EpisodeBatch) -> EpisodeBatch:
    """The episodes with their groups numbered from 0, as credit assignment expects them: those of
    one process bear the numbers that they have among the groups of all.
    """
    _, numbers = np.unique(np.asarray(episodes.group_ids), return_inverse=True)
    return dataclasses.replace(episodes, group_ids=numbers.astype(np.int32))


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


def join_batch(batch: TokenBatch, mesh: jax.sharding.Mesh) -> TokenBatch:
    """The batches `[A, B, T]` of all processes as one on the mesh, each process's rows its own.

    The result is `[max A, processes × B, T]`: what is missing is filled with empty rows, which
    weigh nothing. `B` and `T` have to be the same everywhere. Documents are numbered through.
    """
    placement = sharding.batch_sharding(mesh, leading=1)
    local = sharding.local_mesh(mesh)
    if local is mesh:
        return jax.device_put(batch, placement)
    count, rows, length = batch.tokens.shape
    documents = int(np.max(batch.trajectory_ids, initial=-1)) + 1
    shapes = multihost_utils.process_allgather(np.array([count, rows, length, documents], np.int32))
    if len(np.unique(shapes[:, 1:3], axis=0)) > 1:
        raise ValueError(
            f"the processes have batches [A, B, T] of {shapes[:, :3].tolist()}; B and T have to be"
            " the same on all of them"
        )
    sharding.check_rows(rows, local, "rows of a process's batch", sharding.BATCH_AXES)
    if local.shape["sequence"] != mesh.shape["sequence"]:
        raise ValueError(
            f"sequence has {mesh.shape['sequence']} devices, of which a process drives only"
            f" {local.shape['sequence']}: a process would lack positions of its own rows"
        )
    before = int(shapes[: jax.process_index(), 3].sum())
    ids = np.asarray(batch.trajectory_ids)
    batch = dataclasses.replace(batch, trajectory_ids=np.where(ids < 0, ids, ids + before))
    more = int(shapes[:, 0].max()) - count
    empty = jax.tree.map(
        lambda leaf: leaf.reshape(more, rows, length),
        packing.empty_batch(more * rows, length, shared_prompts=batch.prefix_ids is not None),
    )
    return jax.tree.map(
        lambda mine, padding: jax.make_array_from_process_local_data(
            placement, np.concatenate([mine, padding])
        ),
        batch,
        empty,
    )


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
