"""The files of a Hugging Face checkpoint: safetensors and their index.

A file of safetensors is 8 bytes with the length of a JSON header, the header, and the data of one
tensor after another, at the offsets in the header. Nothing here knows about models.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import operator
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gtpo_jax.language.files import refuse_git_lfs_pointer

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FAULT_BYTES = 2**21  # that Linux may map around a page at its first use, before and after it
HEADER_BYTES = 100_000_000  # the longest header of a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """The place of one tensor's data."""

    file: pathlib.Path
    offset: int  # of the first byte, from the start of the file
    nbytes: int
    dtype: str  # as in the header: BF16, F16, F32, …
    shape: tuple[int, ...]


def read_config(folder: str | pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a checkpoint."""
    return read_json(pathlib.Path(folder) / "config.json")


def read_headers(folder: str | pathlib.Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint by name, in the order of the files. Reads no weights.

    Raises ValueError for files that are missing, cut short or not safetensors.
    """
    folder = pathlib.Path(folder)
    index = folder / INDEX
    if index.exists():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
            raise ValueError(f"{index} has no weight_map from tensors to files")
        files = [folder / name for name in sorted(set(places.values()))]
        absent = [file.name for file in files if file.parent != folder or not file.is_file()]
        if absent:
            raise ValueError(
                f"{index} points to files that are not in {folder}: {', '.join(absent)};"
                " complete the download"
            )
    else:
        files = sorted(folder.glob("*.safetensors"))
        if folder / SINGLE in files:
            files = [folder / SINGLE]
        if len(files) != 1:
            raise ValueError(
                f"{folder} has {len(files) or 'no'} files *.safetensors and no {INDEX};"
                " a checkpoint is one such file, or several and that index"
            )
        places = None
    stored: dict[str, Stored] = {}
    for file in files:
        header = read_header(file)
        twice = sorted(header.keys() & stored.keys())
        if twice:
            raise ValueError(f"{file} has tensors that another file has too: {listed(twice)}")
        stored |= header
    if places is not None:
        wrong = [name for name in places if name not in stored]
        wrong += [name for name, at in stored.items() if places.get(name) != at.file.name]
        if wrong:
            raise ValueError(f"{index} does not say where these tensors are: {listed(wrong)}")
    return stored


def read_header(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of one file.

    Raises ValueError unless the tensors fill the file from the header to its end, without overlaps
    or gaps.
    """
    refuse_git_lfs_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_BYTES):
            raise ValueError(
                f"{path} is cut short or not a safetensors file: it has {size:,} bytes, and its"
                f" header should take {length:,} after the first 8"
            )
        try:
            stored = _parsed(path, 8 + length, file.read(length))
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(
                f"the header of {path} is not a safetensors header"
                f" ({type(error).__name__}: {error}); fetch the file again"
            ) from None
    _check_layout(path, stored, begin=8 + length, size=size)
    return stored


def _parsed(path: pathlib.Path, begin: int, text: bytes) -> dict[str, Stored]:
    """The tensors of a JSON header; their offsets count from byte `begin` of the file."""
    header = json.loads(text)
    header.pop("__metadata__", None)
    return {
        name: Stored(
            file=path,
            offset=begin + start,
            nbytes=stop - start,
            dtype=str(entry["dtype"]),
            shape=tuple(map(operator.index, entry["shape"])),
        )
        for name, entry in header.items()
        for start, stop in [map(operator.index, entry["data_offsets"])]
    }


def _check_layout(
    path: pathlib.Path, stored: Mapping[str, Stored], *, begin: int, size: int
) -> None:
    """Raises ValueError unless the tensors fill the bytes from `begin` to `size`."""
    end, before = begin, "the header"
    for name, tensor in sorted(stored.items(), key=lambda at: (at[1].offset, at[1].nbytes)):
        if tensor.offset != end or tensor.nbytes < 0:
            raise ValueError(
                f"{path}: {name} begins at byte {tensor.offset:,} and {before} ends at {end:,};"
                " tensors must not overlap or leave gaps"
            )
        if tensor.dtype in DTYPES:
            needed = math.prod(tensor.shape) * np.dtype(DTYPES[tensor.dtype]).itemsize
            if tensor.nbytes != needed or min(tensor.shape, default=0) < 0:
                raise ValueError(
                    f"{path}: {name} has {tensor.nbytes:,} bytes, and {tensor.dtype} of shape"
                    f" {tensor.shape} takes {needed:,}"
                )
        end, before = tensor.offset + tensor.nbytes, name
    if end != size:
        raise ValueError(
            f"{path} has {size:,} bytes, and its header describes {end:,};"
            " it is cut short or damaged, fetch it again"
        )


class Reader:
    """Views of the tensors in mappings of their files."""

    def __init__(self, stored: Mapping[str, Stored]):
        self._stored = stored
        self._maps: dict[pathlib.Path, mmap.mmap] = {}
        for file in {at.file for at in stored.values()}:
            with file.open("rb") as opened:
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(DTYPES[self._stored[name].dtype])

    def view(self, name: str) -> np.ndarray:
        at = self._stored[name]
        count = math.prod(at.shape)
        values = np.frombuffer(self._maps[at.file], self.dtype(name), count, at.offset)
        return values.reshape(at.shape)

    def release(self, name: str, rows: slice) -> None:
        """Releases the pages of some rows; another access reads them from the file again."""
        at = self._stored[name]
        width = at.nbytes // at.shape[0]
        start = max(0, at.offset + rows.start * width - FAULT_BYTES)
        start -= start % mmap.PAGESIZE
        stop = at.offset + rows.stop * width + FAULT_BYTES
        self._maps[at.file].madvise(mmap.MADV_DONTNEED, start, stop - start)


def listed(names: Iterable[str]) -> str:
    """All names in one string; names that differ only in a layer or expert share a range."""
    names = sorted(names)
    for number in (1, 0):  # experts within a layer, then layers
        groups: dict[tuple[str, str], set[int]] = {}
        for name in names:
            parts = re.split(r"(?<=\.)(\d+)(?=\.)", name)
            at = 2 * number + 1
            if at < len(parts):
                ends = "".join(parts[:at]), "".join(parts[at + 1 :])
                groups.setdefault(ends, set()).add(int(parts[at]))
            else:
                groups[name, ""] = set()
        names = [f"{before}{_ranges(values)}{after}" for (before, after), values in groups.items()]
    return ", ".join(names)


def _ranges(values: set[int]) -> str:
    """`{0-3,7}`; a single number has no braces."""
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and spans[-1][1] == value - 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return f"{{{text}}}" if len(values) > 1 else text


def read_json(path: pathlib.Path) -> dict[str, Any]:
    refuse_git_lfs_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; is it a checkpoint?") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {type(value).__name__} instead of an object")
    return value
