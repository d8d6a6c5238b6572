"""Our parameters as a folder that `transformers` loads.

A tensor is gathered from its shards on the devices in pieces of at most `PIECE_BYTES`, so host
memory holds two of these, whatever the model's size.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import jax
import numpy as np

from gtpo_jax.types import Params
from models import hf_config, hf_names
from models.config import ModelConfig
from models.hf_files import DTYPES, INDEX, SINGLE, read_config
from models.hf_weights import Box, by_path, copy, leaves_of, pieces

CARRIED = (  # files beside the weights that an export takes over from where they came from
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def save_checkpoint(
    folder: str | pathlib.Path,
    config: ModelConfig,
    params: Params,
    *,
    dtype: str | None = None,
    source: str | pathlib.Path | None = None,
    shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> None:
    """Writes a folder that `transformers` loads, in `dtype` (that of the config without one).

    `source` is the checkpoint that the model came from: its tokenizer and generation config go
    along, and what its config.json says beside the shapes. Files hold at most `shard_bytes`, or
    one tensor. The folder appears when it is complete; a checkpoint that lies there is an error
    unless it may be overwritten, and anything else that lies there is one always.
    """
    folder = pathlib.Path(folder).absolute()
    target = np.dtype(dtype or config.param_dtype)
    if target.name not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES.values())}, got {target.name}")
    others: dict[str, Any] = {}
    if source is not None:
        others = read_config(source)
        others |= others.get("text_config") or {}
    written = hf_config.to_hf(dataclasses.replace(config, param_dtype=target.name), others=others)
    leaves = by_path(params)
    _check_fits(config, leaves)
    _check_free(folder, overwrite)

    tensors = hf_names.tensors(config)
    files = _divided(tensors, target.itemsize, shard_bytes)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _write_json(partial / "config.json", written)
        for name, part in files.items():
            with (partial / name).open("wb") as file:
                _write_tensors(file, part, leaves, target)
        if len(files) > 1:
            total = sum(math.prod(tensor.shape) for tensor in tensors) * target.itemsize
            places = {tensor.name: name for name, part in files.items() for tensor in part}
            index = {"metadata": {"total_size": total}, "weight_map": places}
            _write_json(partial / INDEX, index)
        if source is not None:
            for name in CARRIED:
                if (pathlib.Path(source) / name).is_file():
                    shutil.copyfile(pathlib.Path(source) / name, partial / name)
        if folder.exists():
            replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_fits(config: ModelConfig, leaves: Mapping[tuple[str, ...], Any]) -> None:
    """Raises unless the parameters are those of the config, all here."""
    wanted = {"/".join(leaf.path): leaf.shape for leaf in leaves_of(config)}
    found = {"/".join(path): leaf.shape for path, leaf in leaves.items()}
    wrong = [
        f"{name} is {found.get(name, 'absent')} instead of {wanted.get(name, 'absent')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        raise ValueError(f"the parameters are not those of the config: {', '.join(wrong)}")
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves.values()):
        raise ValueError(
            "parts of the parameters are on devices of other processes;"
            " save a checkpoint of the run, and export that in one process"
        )


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} exists and is no checkpoint; choose another folder")
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another folder, or pass overwrite (--overwrite)")


def _divided(
    tensors: Iterable[hf_names.Tensor], itemsize: int, shard_bytes: int
) -> dict[str, list[hf_names.Tensor]]:
    """Tensors by the file that they go to."""
    parts: list[list[hf_names.Tensor]] = [[]]
    taken = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * itemsize
        if parts[-1] and taken + size > shard_bytes:
            parts.append([])
            taken = 0
        parts[-1].append(tensor)
        taken += size
    if len(parts) == 1:
        return {SINGLE: parts[0]}
    count = len(parts)
    return {f"model-{i:05}-of-{count:05}.safetensors": part for i, part in enumerate(parts, 1)}


def _write_tensors(
    file: BinaryIO,
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> None:
    """One file of safetensors. A tensor is gathered from its shards piece by piece."""
    code = {ours: theirs for theirs, ours in DTYPES.items()}[dtype.name]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
        shape = list(tensor.shape)
        header[tensor.name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        leaf, at = leaves[tensor.path], tuple(slice(i, i + 1) for i in tensor.index)
        sizes = tensor.shape[::-1] if tensor.transposed else tensor.shape
        itemsize = max(leaf.dtype.itemsize, dtype.itemsize)
        for box in pieces(sizes, 0, tensor.transposed, itemsize=itemsize):
            values = tensor.swap(_gather(leaf, (*at, *box))[(0,) * len(at)])
            piece = np.empty(values.shape, dtype)
            copy(values, piece)
            file.write(piece.view(np.uint8).data)


def _gather(leaf: jax.Array | np.ndarray, box: Box) -> np.ndarray:
    """Part of a leaf on the host, from the devices that have it."""
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
            values = jax.lax.dynamic_slice(shard.data, start, sizes)
            there = (
                slice(a - p.start, b - p.start) for a, b, p in zip(low, high, box, strict=True)
            )
            whole[tuple(there)] = np.asarray(values)
    return whole


def _write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
