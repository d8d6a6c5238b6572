"""Weights of Hugging Face checkpoints: from a folder of safetensors to device arrays.

Arrays are filled in pieces of at most `PIECE_BYTES`, through a memory map of the files. Whatever
the size of the checkpoint and of its tensors, host memory holds at most `HOST_BYTES` of it beside
the arrays themselves. A leaf, which is a stack of tensors, is never on the host as a whole, unless
its device keeps arrays in host memory; a device gets only its own shards. Where dtypes agree,
nothing is rounded.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from gtpo_jax.types import Params
from models.config import ModelConfig
from models.hf import config as hf_config
from models.hf import names as hf_names
from models.hf.files import DTYPES, Reader, Stored, listed, read_config, read_headers

PIECE_BYTES = 16 * 2**20  # read or written at a time
THREADS = 4  # that fill leaves in parallel
HOST_BYTES = 3 * THREADS * PIECE_BYTES  # per thread: a piece mapped, stacked, and in transfer

IGNORED = re.compile(r"\.rotary_emb(_local)?\.\w+$")  # buffers that follow from config.json
ALIGNMENT = 64  # of memory that JAX takes over on CPU
TRANSPOSED_COLUMNS = 128

Box = tuple[slice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder whose tensors were checked against `config`."""

    folder: pathlib.Path
    config: ModelConfig
    prefix: str  # of the names of the decoder's tensors
    stored: Mapping[str, Stored]  # by their names in published files

    @property
    def left_out(self) -> list[str]:
        """Names of the tensors of other parts of the model, such as an image encoder."""
        return [name for name in self.stored if not name.startswith(self.prefix)]


def open_checkpoint(folder: str | pathlib.Path) -> Checkpoint:
    """Opens the checkpoint in a folder and checks it against its config. Makes no array.

    It ignores rotary buffers, a copy of the embedding as head of a tied model and, in models for
    text and images, tensors outside the decoder (`Checkpoint.left_out`). One ValueError lists
    everything else that is missing, unknown, or of another shape or dtype than expected.

    Where config.json names no dtype, it is the widest of the decoder's tensors.
    """
    folder = pathlib.Path(folder)
    config_json = read_config(folder)
    hf_config.from_hf(config_json)  # a wrong config is refused before anything else
    prefix = hf_config.name_prefix(config_json)
    stored = {
        hf_config.published_name(config_json, name): at for name, at in read_headers(folder).items()
    }
    config = hf_config.from_hf(config_json, dtype=_widest(stored, prefix))
    wanted = {tensor.name: tensor for tensor in hf_names.tensors(config, prefix=prefix)}
    ours = {name for name in stored if name.startswith(prefix) and not IGNORED.search(name)}
    head, embedding = f"{prefix}lm_head.weight", f"{prefix}model.embed_tokens.weight"
    copied = config.tied_embeddings and {head, embedding} <= ours
    found = {
        "missing": listed(wanted.keys() - ours),
        "not of this model": listed(ours - wanted.keys() - {head}),
    }
    known = [(name, stored[name], wanted[name].shape) for name in wanted if name in ours]
    found["of another shape"] = listed(
        f"{name} {at.shape} instead of {shape}" for name, at, shape in known if at.shape != shape
    )
    found[f"of another dtype than {', '.join(DTYPES)}"] = listed(
        f"{name} {at.dtype}" for name, at, _ in known if at.dtype not in DTYPES
    )
    if copied and not any(found.values()) and not _equal(stored[head], stored[embedding]):
        found["not tied, though config.json says so"] = f"{head} and {embedding} differ"
    problems = "; ".join(f"{what}: {names}" for what, names in found.items() if names)
    if problems:
        raise ValueError(
            f"the tensors of {folder} are not those of its config.json: {problems};"
            " does config.json belong to them, and is the download complete?"
        )
    return Checkpoint(folder=folder, config=config, prefix=prefix, stored=stored)


def _widest(stored: Mapping[str, Stored], prefix: str) -> str:
    """The dtype that holds the values of all the decoder's tensors without rounding."""
    found = {at.dtype for name, at in stored.items() if name.startswith(prefix)} & DTYPES.keys()
    return DTYPES[found.pop()] if len(found) == 1 else "float32"


def load_params(
    checkpoint: Checkpoint, *, shardings: Params | None = None, dtype: str | None = None
) -> Params:
    """Our parameters, in `dtype`; the default is the config's.

    `shardings` has the sharding of every parameter, as `sharding.param_shardings` gives it; without
    it they go to the default device. Every process reads the shards of its own devices.
    """
    target = np.dtype(dtype or checkpoint.config.param_dtype)
    placed = {} if shardings is None else by_path(shardings)
    reader = Reader(checkpoint.stored)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        pending = {}
        for leaf in leaves_of(checkpoint.config, prefix=checkpoint.prefix):
            placement = placed.get(leaf.path)
            pending[leaf.path] = (leaf, placement, _submit(pool, reader, leaf, placement, target))
        params: dict[str, Any] = {}
        for path, (leaf, placement, jobs) in pending.items():
            shards = [shard for job in jobs for shard in job.result()]
            *parents, last = path
            node = functools.reduce(lambda inner, key: inner.setdefault(key, {}), parents, params)
            node[last] = shards[0]
            if placement is not None:
                node[last] = jax.make_array_from_single_device_arrays(leaf.shape, placement, shards)
    return params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One of our parameters, and the tensors that are stacked into it."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    tensors: Mapping[tuple[int, ...], hf_names.Tensor]  # by index on the leading axes
    transposed: bool

    @property
    def leading(self) -> int:
        """Number of axes before those of a tensor: layer, expert."""
        return len(next(iter(self.tensors)))


def leaves_of(config: ModelConfig, *, prefix: str = "") -> list[Leaf]:
    """Every parameter of a model, with the tensors of a checkpoint that are stacked into it."""
    return stacked(hf_names.tensors(config, prefix=prefix))


def stacked(tensors: Iterable[hf_names.Tensor]) -> list[Leaf]:
    """Groups tensors into the parameters that they are parts of."""
    by_path: dict[tuple[str, ...], dict[tuple[int, ...], hf_names.Tensor]] = {}
    for tensor in tensors:
        by_path.setdefault(tensor.path, {})[tensor.index] = tensor
    leaves = []
    for path, parts in by_path.items():
        last_index, last = max(parts.items())
        own = last.shape[::-1] if last.transposed else last.shape
        leaves.append(
            Leaf(
                path=path,
                shape=(*(i + 1 for i in last_index), *own),
                tensors=parts,
                transposed=last.transposed,
            )
        )
    return leaves


def _itemsize(reader: Reader, leaf: Leaf) -> int:
    """Bytes of one value, in the widest dtype that the leaf has in the files."""
    return max(reader.dtype(tensor.name).itemsize for tensor in leaf.tensors.values())


def read(reader: Reader, leaf: Leaf, box: Box) -> np.ndarray:
    """Reads part of a leaf in the dtype of the files, in the shape of the box."""
    within = box[leaf.leading :]
    within = within[::-1] if leaf.transposed else within
    names = [leaf.tensors[index].name for index in indices(leaf, box)]
    views = [reader.view(name)[within] for name in names]
    if len(views) == 1:
        values = views[0][(None,) * leaf.leading]
    else:
        if len({view.dtype for view in views}) > 1:
            views = [view.astype(np.float32) for view in views]
        lengths = (part.stop - part.start for part in box[: leaf.leading])
        values = np.stack(views).reshape(*lengths, *views[0].shape)
    return values.swapaxes(-1, -2) if leaf.transposed else values


def forget(reader: Reader, leaf: Leaf, box: Box) -> None:
    """Releases the pages that `read` has mapped for a box."""
    rows = box[-1] if leaf.transposed else box[leaf.leading]
    for index in indices(leaf, box):
        reader.release(leaf.tensors[index].name, rows)


def indices(leaf: Leaf, box: Box) -> Iterator[tuple[int, ...]]:
    """Indices of the tensors that a box of the leaf is cut from."""
    return itertools.product(*(range(part.start, part.stop) for part in box[: leaf.leading]))


def _submit(
    pool: concurrent.futures.Executor,
    reader: Reader,
    leaf: Leaf,
    placement: Sharding | None,
    dtype: np.dtype,
) -> list[concurrent.futures.Future[list[jax.Array]]]:
    """Submits jobs that fill the shards of a leaf: one for all devices that have the same part."""
    holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    if placement is None:
        holders[tuple((0, size) for size in leaf.shape)] = [None]
    else:
        for device, index in placement.addressable_devices_indices_map(leaf.shape).items():
            assert index is not None
            bounds = (part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True))
            holders.setdefault(tuple(bounds), []).append(device)
    return [
        pool.submit(_fill, reader, leaf, tuple(slice(*b) for b in bounds), devices, dtype)
        for bounds, devices in holders.items()
    ]


def _fill(
    reader: Reader,
    leaf: Leaf,
    part: Box,
    devices: Sequence[Any],
    dtype: np.dtype,
) -> list[jax.Array]:
    """Fills one part of a leaf on each of the devices, piece by piece."""
    sizes = [axis.stop - axis.start for axis in part]
    on_host = in_host_memory(devices)
    host = _aligned(sizes, dtype) if on_host else None
    shards = [] if on_host else [jnp.zeros(sizes, dtype, device=device) for device in devices]
    for box in pieces(sizes, leaf.leading, leaf.transposed, itemsize=_itemsize(reader, leaf)):
        there = tuple(
            slice(axis.start + piece.start, axis.start + piece.stop)
            for axis, piece in zip(part, box, strict=True)
        )
        values = read(reader, leaf, there)
        if host is not None:
            copy(values, host[box])
        start = tuple(piece.start for piece in box)
        for i, shard in enumerate(shards):
            shards[i] = _place(shard, jax.device_put(values, devices[i]), start)
        jax.block_until_ready(shards)  # or pieces would pile up faster than they are placed
        forget(reader, leaf, there)
    return shards if host is None else [jax.device_put(host, device) for device in devices]


def in_host_memory(devices: Sequence[Any]) -> bool:
    """Tells whether these devices can take over a NumPy array without a copy."""
    platforms = {jax.default_backend() if d is None else d.platform for d in devices}
    return platforms == {"cpu"}


def _aligned(sizes: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array that JAX can take over without a copy."""
    count = math.prod(sizes) * dtype.itemsize
    memory = np.empty(count + ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % ALIGNMENT
    return memory[skipped : skipped + count].view(dtype).reshape(sizes)


def copy(source: np.ndarray, target: np.ndarray) -> None:
    """`target[...] = source`; a transposed source is copied in few columns that fit the cache."""
    step = source.shape[-1] if source.flags.c_contiguous else TRANSPOSED_COLUMNS
    widened = (source.dtype.name, target.dtype.name) == ("bfloat16", "float32")
    for start in range(0, source.shape[-1], step):
        columns = np.s_[..., start : start + step]
        if widened:
            # A bfloat16 is the upper half of a float32. Shifting is faster than a conversion, and
            # lets several threads work in parallel.
            halves = np.ascontiguousarray(source[columns]).view(np.uint16)
            np.left_shift(halves, 16, out=target[columns].view(np.uint32), dtype=np.uint32)
        else:
            target[columns] = source[columns]


@functools.partial(jax.jit, donate_argnums=0)
def _place(shard: jax.Array, values: jax.Array, start: tuple[jax.Array, ...]) -> jax.Array:
    return jax.lax.dynamic_update_slice(shard, values.astype(shard.dtype), start)


def pieces(sizes: Sequence[int], leading: int, transposed: bool, *, itemsize: int) -> Iterator[Box]:
    """Boxes of at most `PIECE_BYTES` that together fill a part of a leaf.

    A box has several whole tensors along the last leading axis, or some rows of one tensor in the
    order of the file.
    """
    rows = len(sizes) - 1 if transposed else leading
    steps = [1] * leading + list(sizes[leading:])
    one = math.prod(sizes[leading:]) * itemsize
    if one > PIECE_BYTES:
        steps[rows] = max(1, PIECE_BYTES * sizes[rows] // one)
    elif leading:
        steps[leading - 1] = max(1, min(PIECE_BYTES // max(one, 1), sizes[leading - 1]))
    starts = (range(0, size, step) for size, step in zip(sizes, steps, strict=True))
    for start in itertools.product(*starts):
        yield tuple(
            slice(low, min(low + step, size))
            for low, step, size in zip(start, steps, sizes, strict=True)
        )


def by_path(tree: Params) -> dict[tuple[str, ...], Any]:
    """Leaves of a tree of dicts, by their path of keys from the root."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def _equal(one: Stored, other: Stored) -> bool:
    """Compares two tensors byte for byte."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    reader = Reader({"one": one, "other": other})
    rows, step = one.shape[0], max(1, PIECE_BYTES * one.shape[0] // one.nbytes)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        a, b = (reader.view(name)[part].view(np.uint8) for name in ("one", "other"))
        if not np.array_equal(a, b):
            return False
        for name in ("one", "other"):
            reader.release(name, part)
    return True
