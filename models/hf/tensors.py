"""Our arrays as files of safetensors: written in pieces, and read back.

A tensor is gathered from its shards on the devices in pieces of at most `PIECE_BYTES`, so host
memory holds only a few pieces, whatever the size of the model. The check reads the files as an
import does, and compares every piece with the same part of the arrays.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from models.hf import names as hf_names
from models.hf import weights
from models.hf.files import DTYPES, Reader, Stored, listed
from models.hf.weights import Box, copy, pieces


def write_tensors(
    path: pathlib.Path,
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> None:
    """Writes one file of safetensors, gathering each tensor from its shards piece by piece."""
    code = {ours: theirs for theirs, ours in DTYPES.items()}[dtype.name]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
        shape = list(tensor.shape)
        header[tensor.name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            leaf, at = leaves[tensor.path], tuple(slice(i, i + 1) for i in tensor.index)
            sizes = tensor.shape[::-1] if tensor.transposed else tensor.shape
            itemsize = max(leaf.dtype.itemsize, dtype.itemsize)
            for box in pieces(sizes, 0, tensor.transposed, itemsize=itemsize):
                values = tensor.swap(gather(leaf, (*at, *box))[(0,) * len(at)])
                piece = np.empty(values.shape, dtype)
                copy(values, piece)
                file.write(piece.view(np.uint8).data)


def gather(leaf: jax.Array | np.ndarray, box: Box) -> np.ndarray:
    """Copies part of a leaf to the host, from the devices that have it."""
    if isinstance(leaf, np.ndarray):
        return leaf[box]
    whole = np.empty([part.stop - part.start for part in box], leaf.dtype)
    for shard in leaf.addressable_shards:
        bounds = [i.indices(size)[:2] for i, size in zip(shard.index, leaf.shape, strict=True)]
        low = [max(b[0], part.start) for b, part in zip(bounds, box, strict=True)]
        high = [min(b[1], part.stop) for b, part in zip(bounds, box, strict=True)]
        if shard.replica_id == 0 and all(a < b for a, b in zip(low, high, strict=True)):
            start = [a - b[0] for a, b in zip(low, bounds, strict=True)]
            sizes = [b - a for a, b in zip(low, high, strict=True)]
            there = (
                slice(a - p.start, b - p.start) for a, b, p in zip(low, high, box, strict=True)
            )
            whole[tuple(there)] = _part(shard, start, sizes)
    return whole


def _part(shard: jax.Shard, start: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """Part of a shard on the host: a view where the shard lies there already."""
    data: Any = shard.data
    if weights.in_host_memory([shard.device]):
        box = (slice(low, low + size) for low, size in zip(start, sizes, strict=True))
        return np.asarray(data)[tuple(box)]
    return np.asarray(jax.lax.dynamic_slice(data, start, sizes))


def check_stored(
    stored: Mapping[str, Stored],
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> None:
    """Raises ValueError unless files hold exactly these tensors of `leaves`, in `dtype`.

    It compares names, shapes, dtypes and every bit; the error names the differences.
    """
    wanted = {tensor.name: tensor for tensor in tensors}
    found = {
        "missing": listed(wanted.keys() - stored.keys()),
        "unknown": listed(stored.keys() - wanted.keys()),
        "of another shape": listed(
            name
            for name in wanted.keys() & stored.keys()
            if stored[name].shape != wanted[name].shape
        ),
        "of another dtype": listed(
            name
            for name in wanted.keys() & stored.keys()
            if DTYPES.get(stored[name].dtype) != dtype.name
        ),
    }
    if not any(found.values()):
        found["of other values"] = listed(_other_values(stored, tensors, leaves, dtype))
    problems = "; ".join(f"{what}: {names}" for what, names in found.items() if names)
    if problems:
        raise ValueError(
            f"the files do not read back as they were written ({problems}), and nothing was kept;"
            " is the disk sound? export again, or to another disk"
        )


def _other_values(
    stored: Mapping[str, Stored],
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> set[str]:
    """Names of the tensors in pieces that differ in at least one bit."""
    reader = Reader(stored)
    different: set[str] = set()
    for leaf in weights.stacked(tensors):
        array = leaves[leaf.path]
        itemsize = max(array.dtype.itemsize, dtype.itemsize)
        for box in pieces(leaf.shape, leaf.leading, leaf.transposed, itemsize=itemsize):
            sizes = [part.stop - part.start for part in box]
            there, here = np.empty(sizes, dtype), np.empty(sizes, dtype)
            copy(weights.read(reader, leaf, box), there)
            copy(gather(array, box), here)
            if not np.array_equal(there.view(np.uint8), here.view(np.uint8)):
                different |= {leaf.tensors[index].name for index in weights.indices(leaf, box)}
            weights.forget(reader, leaf, box)
    return different
