"""Reads the settings of a phase from its file `config.json`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from configs.schema import RunConfig

T = TypeVar("T")


def read(path: pathlib.Path) -> RunConfig:
    """The config in a file. Settings that this version does not have are an error.

    A setting that the file lacks, because it was added after the run began, takes its default.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None
    unknown = sorted(_unknown(RunConfig, saved))
    if unknown:
        raise ValueError(
            f"{path} has settings that this version does not have ({', '.join(unknown)}); go on"
            " with the version that wrote it, which versions.json names, or begin anew in another"
            " --run-dir"
        )
    try:
        return _restore(RunConfig, saved)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None


def _restore(kind: type[T], saved: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in saved.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _restore(hints[name], value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _unknown(kind: type, saved: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names in the file that are not settings, such as `train.forgotten`."""
    hints = typing.get_type_hints(kind)
    for name, value in saved.items():
        if name not in hints:
            yield prefix + name
        elif dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            yield from _unknown(hints[name], value, f"{prefix}{name}.")
