"""Batches of several processes as one: each keeps the rows of its own trajectories."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.experimental import multihost_utils

from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from gtpo_jax.types import EpisodeBatch, TokenBatch


def number_groups(episodes: EpisodeBatch) -> EpisodeBatch:
    """The episodes with their groups numbered from 0, as credit assignment expects them: those of
    one process bear the numbers that they have among the groups of all.
    """
    _, numbers = np.unique(np.asarray(episodes.group_ids), return_inverse=True)
    return dataclasses.replace(episodes, group_ids=numbers.astype(np.int32))


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
