"""Settings that declare in their types which values they may have and whether they may change.

    steps: Annotated[Extended[int], AT_LEAST_1] = 100

A setting that declares no change may not change when a run goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A setting may change when a run goes on, and keeps what was done as it is."""

    unless: str = ""  # a setting that has to be off for it
    because: str = ""  # the reason why it has to be
    extends: bool = False  # only to a number that is no less than what is done


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A group of settings."""

    decides: str  # what they decide: the reason why those that declare no change may not change
    phase: str = ""  # the phase that uses them, empty for all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """The numbers that a setting may be. None, where the type has it, may always be."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    why: str = ""

    def allow(self, value: float) -> bool:
        """Whether the number lies inside; infinity and NaN never do."""
        inside = self.least <= value <= self.most and self.above < value < self.below
        return inside and math.isfinite(value)

    def __str__(self) -> str:
        said = {
            "at least": self.least,
            "at most": self.most,
            "above": self.above,
            "below": self.below,
        }
        parts = [f"{word} {bound:g}" for word, bound in said.items() if math.isfinite(bound)]
        return " and ".join(parts or ["finite"])


Changeable = Annotated[T, Change()]
"""A setting of how a run is watched, saved or served, not of what it learns."""

Rounded = Annotated[
    T,
    Change(
        unless="rollout.lockstep",
        because="it decides the last bits of sums, which rollout.lockstep keeps equal",
    ),
]
"""A setting of how the same numbers are computed: it changes no more than their rounding."""

Extended = Annotated[T, Change(extends=True)]
"""The length of a phase."""

FINITE = Bounds()
POSITIVE = Bounds(above=0)
NOT_NEGATIVE = Bounds(least=0)
AT_LEAST_1 = Bounds(least=1)
SHARE = Bounds(least=0, most=1)
DECAY = Bounds(least=0, below=1)


@dataclasses.dataclass(frozen=True)
class Declared:
    """One setting of a tree of dataclasses."""

    name: str  # as in `train.optimizer.b1`
    value: Any
    metadata: tuple[object, ...]  # of its type, those of the groups around it first

    def all(self, kind: type[T]) -> list[T]:
        """The declarations of a kind, the innermost last."""
        return [item for item in self.metadata if isinstance(item, kind)]

    def last(self, kind: type[T]) -> T | None:
        """The innermost declaration of a kind."""
        return next(reversed(self.all(kind)), None)


def declared(config: Any, prefix: str = "", around: tuple[object, ...] = ()) -> Iterator[Declared]:
    """All settings of a tree of dataclasses, with what their types declare."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        metadata = (*around, *getattr(hints[field.name], "__metadata__", ()))
        if dataclasses.is_dataclass(value):
            yield from declared(value, f"{name}.", metadata)
        else:
            yield Declared(name, value, metadata)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def check_bounds(config: Any, prefix: str = "") -> None:
    """Raises ValueError at the first setting that is not within its bounds."""
    for setting in declared(config, prefix):
        bounds = setting.last(Bounds)
        if bounds is None or setting.value is None:
            continue
        values = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        for value in values:
            if not bounds.allow(value):
                why = f": {bounds.why}" if bounds.why else ""
                raise ValueError(f"{setting.name} must be {bounds}, got {value}{why}")
