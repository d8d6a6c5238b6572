"""Our parameters as a folder that `transformers` loads.

The folder is verified before it appears: importing it gives back the original parameters, bit for
bit.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gtpo_jax.language.files import refuse_git_lfs_pointer
from gtpo_jax.types import Params
from models.config import ModelConfig
from models.hf import config as hf_config
from models.hf import folder as hf_folder
from models.hf import names as hf_names
from models.hf.files import DTYPES, INDEX, SINGLE, read_config
from models.hf.tensors import check_stored, write_tensors
from models.hf.weights import by_path, leaves_of, open_checkpoint

CARRIED = (  # files beside the weights that an export copies from the source checkpoint
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
    nbytes: int  # of their data, headers not counted


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
    """Writes a folder that `transformers` loads, in `dtype`; the default is the config's.

    `source` is the checkpoint that the model came from: its tokenizer and generation config are
    copied, and the keys of its config.json that a ModelConfig does not know. `beside` maps names in
    the folder to more files to copy, `others` has more keys of config.json. Files of weights hold
    at most `shard_bytes`, or one tensor.

    The folder appears once everything has been read back and compared bit by bit. An existing
    checkpoint is an error without `overwrite`; any other existing folder is always an error.
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
            saved = [
                dataclasses.replace(t, name=hf_config.saved_name(written, t.name)) for t in part
            ]
            write_tensors(partial / name, saved, leaves, target)
        if len(files) > 1:
            places = {
                hf_config.saved_name(written, tensor.name): name
                for name, part in files.items()
                for tensor in part
            }
            index = {"metadata": {"total_size": total}, "weight_map": places}
            hf_folder.write_json(partial / INDEX, index)
        for name, path in copied.items():
            shutil.copyfile(path, partial / name)
        _verify(partial, written, tensors, leaves, target)
    return Written(tensors=len(tensors), nbytes=total)


def carried(source: str | pathlib.Path) -> dict[str, pathlib.Path]:
    """The files of a checkpoint's folder that an export copies, by name.

    Raises ValueError if one of them is a Git LFS pointer.
    """
    paths = {name: pathlib.Path(source) / name for name in CARRIED}
    present = {name: path for name, path in paths.items() if path.is_file()}
    for path in present.values():
        refuse_git_lfs_pointer(path)
    return present


def _verify(
    folder: pathlib.Path,
    written: Mapping[str, Any],
    tensors: Sequence[hf_names.Tensor],
    leaves: Mapping[tuple[str, ...], Any],
    dtype: np.dtype,
) -> None:
    """Raises ValueError unless an import of the folder gives what was to be written."""
    checkpoint = open_checkpoint(folder)
    again = hf_config.to_hf(checkpoint.config, others=written)
    if again != written:
        differing = sorted(key for key in again if again[key] != written.get(key))
        raise ValueError(
            f"config.json reads back with another {', '.join(differing)} than was written;"
            " nothing was kept"
        )
    check_stored(checkpoint.stored, tensors, leaves, dtype)


def _check_fits(config: ModelConfig, leaves: Mapping[tuple[str, ...], Any]) -> None:
    """Raises ValueError unless the parameters fit the config and this process has all of them."""
    wanted = {"/".join(leaf.path): leaf.shape for leaf in leaves_of(config)}
    found = {"/".join(path): leaf.shape for path, leaf in leaves.items()}
    wrong = [
        f"{name} is {found.get(name, 'absent')} instead of {wanted.get(name, 'absent')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        raise ValueError(f"the parameters are not those of the config: {', '.join(wrong)}")
    arrays = [leaf for leaf in leaves.values() if isinstance(leaf, jax.Array)]
    if not all(leaf.is_fully_addressable for leaf in arrays):
        raise ValueError(
            "parts of the parameters are on devices of other processes;"
            " save a checkpoint of the run, and export that in one process"
        )


def _divided(
    tensors: Iterable[hf_names.Tensor], itemsize: int, shard_bytes: int
) -> dict[str, list[hf_names.Tensor]]:
    """Names of files, and the tensors that each of them holds."""
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
