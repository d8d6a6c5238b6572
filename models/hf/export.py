"""Our parameters as a folder that `transformers` loads.

The folder is verified before it appears: an import of it would give the parameters that it was made
from, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gtpo_jax.language.files import refuse_git_lfs_pointer
from gtpo_jax.types import Params
from models.config import ModelConfig
from models.hf import config as hf_config
from models.hf import folder as hf_folder
from models.hf import names as hf_names
from models.hf import weights as hf_weights
from models.hf.files import DTYPES, INDEX, SINGLE, read_config
from models.hf.tensors import check_stored, write_tensors
from models.hf.weights import by_path, leaves_of

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """The tensors that an export wrote and read back."""

    tensors: int
    nbytes: int  # of their numbers


def save_checkpoint(
    folder: str | pathlib.Path,
    config: ModelConfig,
    params: Params,
    *,
    dtype: str | None = None,
    source: str | pathlib.Path | None = None,
    beside: Mapping[str, pathlib.Path] | None = None,
    others: Mapping[str, Any] | None = None,
    shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Written:
    """Writes a folder that `transformers` loads, in `dtype` (that of the config without one).

    `source` is the checkpoint that the model came from: its tokenizer and generation config go
    along, and what its config.json says beside the shapes. `beside` has further files by their
    names in the folder, `others` further keys of config.json. Files of weights hold at most
    `shard_bytes`, or one tensor.

    Everything is read back and compared bit by bit; then the folder appears. A checkpoint that lies
    there is an error unless it may be overwritten, and anything else that lies there is one always.
    """
    folder = pathlib.Path(folder).absolute()
    target = np.dtype(dtype or config.param_dtype)
    if target.name not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES.values())}, got {target.name}")
    known, copied = dict(others or {}), dict(beside or {})
    if source is not None:
        known = {**hf_config.decoder_part(read_config(source)), **known}
        copied = {**carried(source), **copied}
    written = hf_config.to_hf(dataclasses.replace(config, param_dtype=target.name), others=known)
    leaves = by_path(params)
    _check_fits(config, leaves)
    hf_folder.check_free(folder, marker="config.json", overwrite=overwrite)

    tensors = hf_names.tensors(config)
    files = _divided(tensors, target.itemsize, shard_bytes)
    total = sum(math.prod(tensor.shape) for tensor in tensors) * target.itemsize
    with hf_folder.appearing(folder) as partial:
        hf_folder.write_json(partial / "config.json", written)
        for name, part in files.items():
            write_tensors(partial / name, part, leaves, target)
        if len(files) > 1:
            places = {tensor.name: name for name, part in files.items() for tensor in part}
            index = {"metadata": {"total_size": total}, "weight_map": places}
            hf_folder.write_json(partial / INDEX, index)
        for name, path in copied.items():
            shutil.copyfile(path, partial / name)
        _verify(partial, written, tensors, leaves, target)
    return Written(tensors=len(tensors), nbytes=total)


def carried(source: str | pathlib.Path) -> dict[str, pathlib.Path]:
    """The files of a checkpoint's folder that an export takes along, by name.

    Raises ValueError for one that is a pointer of Git LFS.
    """
    paths = {name: pathlib.Path(source) / name for name in CARRIED}
    found = {name: path for name, path in paths.items() if path.is_file()}
    for path in found.values():
        refuse_git_lfs_pointer(path)
    return found


def _verify(
    folder: pathlib.Path,
    written: Mapping[str, Any],
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> None:
    """Raises ValueError unless the folder, as an import reads it, is what was to be written."""
    checkpoint = hf_weights.open_checkpoint(folder)
    again = hf_config.to_hf(checkpoint.config, others=written)
    if again != written:
        differing = sorted(key for key in again if again[key] != written.get(key))
        raise ValueError(
            f"config.json reads back with another {', '.join(differing)} than was written;"
            " nothing was kept"
        )
    check_stored(checkpoint.stored, tensors, leaves, dtype)


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
