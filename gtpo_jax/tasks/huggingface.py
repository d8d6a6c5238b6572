"""Records in Parquet and in data sets of Hugging Face. Needs the extra `tasks`."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from gtpo_jax.language import files
from gtpo_jax.tasks.mappings.fields import Record

_BATCH = 1024
"""Rows of a Parquet file that are in memory as records at a time."""


def read_parquet(path: pathlib.Path) -> Iterator[tuple[str, Record]]:
    """Rows of a file, with their numbers."""
    parquet = _needed("pyarrow.parquet", str(path))
    files.refuse_git_lfs_pointer(path)
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except (OSError, ValueError) as error:  # those of pyarrow are among them
        raise ValueError(f"cannot read problems from {path}: {_line(error)}") from None


def read_folder(
    path: pathlib.Path, config: str | None, split: str | None
) -> tuple[str, Iterator[tuple[str, Record]]]:
    """The name of the split that was read, and its rows: of a saved data set, or of a clone."""
    datasets = _needed("datasets", str(path))
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if saved and config:
        raise ValueError(
            f"{path} is a saved data set, which has no config {config!r}; leave it out"
        )
    for file in path.rglob("*"):
        files.refuse_git_lfs_pointer(file)
    with _network(False), _told(str(path)):
        if saved:
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path.resolve()), config)
    return _choose(found, split, str(path))


def read_named(
    name: str, config: str | None, split: str | None, *, ask: bool
) -> tuple[str, Iterator[tuple[str, Record]]]:
    """The name of the split that was read, and its rows: of the local cache, or of the hub."""
    datasets = _needed("datasets", name)
    way_out = "look at its name, config and split"
    if not ask:
        way_out = f"no file or folder has this name; if it is on the hub, write hub:{name}"
    with _network(ask), _told(name, way_out):
        found = datasets.load_dataset(name, config)
    return _choose(found, split, name)


def _choose(found: Any, split: str | None, name: str) -> tuple[str, Iterator[tuple[str, Record]]]:
    """The split asked for, or the only one."""
    if not isinstance(found, dict):  # one split that was saved on its own
        own = str(found.split or "data")
        if split not in (None, own):
            raise ValueError(f"{name} holds the split {own!r} alone, got {split!r}")
        return own, _numbered(found)
    if split is None and len(found) == 1:
        [split] = found
    if split is None or split not in found:
        asked = "none was asked for" if split is None else f"got {split!r}"
        raise ValueError(
            f"{name} has the splits {', '.join(found)}, {asked}; write one of them after a colon"
        )
    return split, _numbered(found[split])


def _numbered(rows: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    for number, record in enumerate(rows, 1):
        yield f"row {number}", record


@contextlib.contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Whether the hub may be asked inside, unless the environment forbids it anyway."""
    modules = [_needed(name, "") for name in ("huggingface_hub.constants", "datasets.config")]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = module.HF_HUB_OFFLINE or not allowed
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


@contextlib.contextmanager
def _told(name: str, way_out: str = "") -> Iterator[None]:
    """Whatever keeps a data set from being read, its user has to know."""
    try:
        yield
    except Exception as error:  # of files, the network, and dozens of kinds of their own
        hint = f"; {way_out}" if way_out else ""
        raise ValueError(f"cannot read the data set {name}: {_line(error)}{hint}") from error


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _needed(module: str, source: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ValueError(
            f"reading {source} needs the package {package}: pip install -e '.[tasks]'"
        ) from error
