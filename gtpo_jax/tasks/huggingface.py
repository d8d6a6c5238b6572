"""Reads records of Parquet files and Hugging Face data sets. Needs the extra `tasks`."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from gtpo_jax.language import files
from gtpo_jax.tasks.mappings.fields import Record

_BATCH = 1024
"""Number of rows of a Parquet file that are converted to records at a time."""


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
    except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
        raise ValueError(f"cannot read problems from {path}: {_line(error)}") from None


def read_folder(
    path: pathlib.Path, config: str | None, split: str | None
) -> tuple[str, Iterator[tuple[str, Record]]]:
    """Name and rows of the chosen split of a saved data set or of a clone."""
    datasets = _needed("datasets", str(path))
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if saved and config:
        raise ValueError(
            f"{path} is a saved data set, which has no config {config!r}; leave it out"
        )
    for file in path.rglob("*"):
        files.refuse_git_lfs_pointer(file)
    with _network(False), _read_errors(str(path)):
        if saved:
            dataset = datasets.load_from_disk(str(path))
        else:
            dataset = datasets.load_dataset(str(path.resolve()), config)
    return _choose(dataset, split, str(path))


def read_named(
    name: str, config: str | None, split: str | None, *, ask: bool
) -> tuple[str, Iterator[tuple[str, Record]]]:
    """Name and rows of a split of a data set in the local cache or, with `ask`, on the hub."""
    datasets = _needed("datasets", name)
    way_out = "look at its name, config and split"
    if not ask:
        way_out = f"no file or folder has this name; if it is on the hub, write hub:{name}"
    with _network(ask), _read_errors(name, way_out):
        dataset = datasets.load_dataset(name, config)
    return _choose(dataset, split, name)


def _choose(dataset: Any, split: str | None, name: str) -> tuple[str, Iterator[tuple[str, Record]]]:
    """Name and rows of the requested split, or of the only one."""
    if not isinstance(dataset, dict):  # a single split that was saved on its own
        own = str(dataset.split or "data")
        if split not in (None, own):
            raise ValueError(f"{name} holds the split {own!r} alone, got {split!r}")
        return own, _numbered(dataset)
    if split is None and len(dataset) == 1:
        [split] = dataset
    if split is None or split not in dataset:
        asked = "none was asked for" if split is None else f"got {split!r}"
        raise ValueError(
            f"{name} has the splits {', '.join(dataset)}, {asked}; write one of them after a colon"
        )
    return split, _numbered(dataset[split])


def _numbered(rows: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    for number, record in enumerate(rows, 1):
        yield f"row {number}", record


@contextlib.contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Allows or forbids access to the hub in the block; the environment may forbid it anyway."""
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
def _read_errors(name: str, way_out: str = "") -> Iterator[None]:
    """Turns any error in the block into a `ValueError` that names the data set."""
    try:
        yield
    except Exception as error:  # of files, of the network, and many types of the packages
        hint = f"; {way_out}" if way_out else ""
        raise ValueError(f"cannot read the data set {name}: {_line(error)}{hint}") from error


def _line(error: Exception) -> str:
    """The message of an error, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _needed(module: str, source: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ValueError(
            f"reading {source} needs the package {package}: pip install -e '.[tasks]'"
        ) from error
