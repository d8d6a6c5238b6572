"""Settings whose types declare which values are allowed and whether a resumed run may change them.

    steps: Annotated[Extended[int], AT_LEAST_1] = 100

A setting that declares no change must keep its value when a run is resumed.
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
    """Declares that a resumed run may change a setting; earlier steps stay as they are."""

    unless: str = ""  # name of a setting that must be off for the change
    because: str = ""  # why it must be off
    extends: bool = False  # the new value may not be below the steps already done


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Declares what a group of settings is for."""

    decides: str  # what the settings decide: the reason given when a change is refused
    phase: str = ""  # the phase that uses them; empty: all phases


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """Declares the range of a number. None is always allowed if the type includes it."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    why: str = ""

    def allow(self, value: float) -> bool:
        """True if the number is finite and within the bounds."""
        inside = self.least <= value <= self.most and self.above < value < self.below
        return inside and math.isfinite(value)

    def __str__(self) -> str:
        limits = {
            "at least": self.least,
            "at most": self.most,
            "above": self.above,
            "below": self.below,
        }
        parts = [f"{word} {bound:g}" for word, bound in limits.items() if math.isfinite(bound)]
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
"""A setting that affects numbers only by rounding."""

Extended = Annotated[T, Change(extends=True)]
"""The length of a phase, which a resumed run may change."""

FINITE = Bounds()
POSITIVE = Bounds(above=0)
NOT_NEGATIVE = Bounds(least=0)
AT_LEAST_1 = Bounds(least=1)
SHARE = Bounds(least=0, most=1)
DECAY = Bounds(least=0, below=1)


@dataclasses.dataclass(frozen=True)
class Declared:
    """A setting in a tree of dataclasses: name, value and declarations."""

    name: str  # dotted path such as `train.optimizer.b1`
    value: Any
    metadata: tuple[object, ...]  # annotations of the type, outer groups first

    def all(self, kind: type[T]) -> list[T]:
        """All declarations of a kind, innermost last."""
        return [item for item in self.metadata if isinstance(item, kind)]

    def last(self, kind: type[T]) -> T | None:
        """The innermost declaration of a kind."""
        return next(reversed(self.all(kind)), None)


def declared(config: Any, prefix: str = "", around: tuple[object, ...] = ()) -> Iterator[Declared]:
    """Iterates over all settings of a tree of dataclasses, with the declarations of their types."""
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
    """Raises ValueError at the first setting outside its bounds."""
    for setting in declared(config, prefix):
        bounds = setting.last(Bounds)
        if bounds is None or setting.value is None:
            continue
        values = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        for value in values:
            if not bounds.allow(value):
                why = f": {bounds.why}" if bounds.why else ""
                raise ValueError(f"{setting.name} must be {bounds}, got {value}{why}")
