"""A lower bound of a run's memory, so that a run that can never fit is refused before it begins."""

from __future__ import annotations

import os

import jax.numpy as jnp
from jax.sharding import Mesh

from configs.schema import RunConfig
from gtpo_jax.devices import sharding

GIB = 2**30


def check_memory(config: RunConfig, mesh: Mesh) -> None:
    """Raises ValueError if one part of a run alone exceeds the memory of a device.

    `mesh` is the mesh of this process. A run that passes may still not fit: `launch.plan` compiles
    its programs.
    """
    memory = device_memory(mesh)
    for option, bytes_needed in least_bytes(config, mesh).items():
        if memory is not None and bytes_needed > memory:
            raise ValueError(
                f"{option} takes {bytes_needed / GIB:,.1f} GiB of each device, which has"
                f" {memory / GIB:,.1f}; lower it, or take more devices; `python -m launch.plan`"
                " says what a run takes"
            )


def device_memory(mesh: Mesh) -> int | None:
    """Bytes of memory of a device. On CPU, bytes of the machine, which its devices share."""
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    if device.platform != "cpu":
        return stats.get("bytes_limit")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(mesh.local_devices)


def least_bytes(config: RunConfig, mesh: Mesh) -> dict[str, float]:
    """Least bytes per device of cache, hidden states and logits, by the option that scales them."""
    model, limits, train, sft = config.model, config.rollout, config.train, config.sft
    item = jnp.dtype(model.compute_dtype).itemsize
    tensor = mesh.shape["tensor"]
    heads = model.kv_heads / tensor if model.kv_heads % tensor == 0 else model.kv_heads
    row = 2 * model.layers * heads * limits.cache_lengths[0] * model.head_dim * item
    sizes = {
        f"rollout.slots {limits.slots:,}": limits.slots / sharding.row_count(mesh) * row,
        f"rollout.parked {limits.parked:,}": limits.parked / sharding.row_count(mesh) * row,
    }
    shards = sharding.row_count(mesh, sharding.BATCH_AXES) * mesh.shape["sequence"]
    for name, rows, length, chunk in (
        ("train.rows", train.rows, train.row_tokens or limits.context, train.logprob_chunk),
        ("sft.rows", sft.rows, sft.row_tokens, sft.logprob_chunk),
    ):
        # The input of every layer stays for the backward pass, and logits are float32.
        hidden = rows * length * model.width * item * model.layers
        logits = rows * min(chunk or length, length) * model.vocab_size / tensor * 4
        sizes[f"{name} {rows:,} of {length:,} tokens"] = max(hidden, logits) / shards
    return sizes


def advice(reason: str) -> str:
    """Advice for a run that ran out of memory."""
    return (
        f"out of memory: {reason}; lower rollout.slots, train.rows or sft.rows, set"
        " train.logprob_chunk and sft.logprob_chunk, add --model.remat full, or share the"
        " parameters (--mesh.fsdp); `python -m launch.plan` says what a run takes"
    )
