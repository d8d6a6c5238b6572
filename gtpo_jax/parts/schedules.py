"""Schedules: numbers that change with the step of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks

Schedule = Callable[[jax.Array], jax.Array]
"""`step (int32, from 0) → number`, elementwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """From `first` at step 0 to `last` at step `steps`, where it stays."""

    first: float
    last: float
    steps: float

    def __post_init__(self):
        checks.check_positive("steps", self.steps, hint="it counts the steps of the schedule")

    def __call__(self, step: jax.Array) -> jax.Array:
        progress = jnp.clip(step / self.steps, 0.0, 1.0)
        return (1.0 - progress) * self.first + progress * self.last


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownAndUp:
    """From the middle of two bounds down to `lowest` at step `turn`, then up to `highest` at step
    `steps`, linearly, where it stays (GRPO-D, arXiv 2503.16081).
    """

    lowest: float
    highest: float
    turn: float
    steps: float

    def __post_init__(self):
        checks.check_positive("turn", self.turn, hint="it is the step at which the schedule turns")
        if not self.turn < self.steps:
            raise ValueError(
                f"the schedule turns at step {self.turn:g} and ends at step {self.steps:g}; it must"
                " turn before its end"
            )

    def __call__(self, step: jax.Array) -> jax.Array:
        middle = 0.5 * (self.lowest + self.highest)
        down = middle - (middle - self.lowest) * step / self.turn
        after = jnp.clip((step - self.turn) / (self.steps - self.turn), 0.0, 1.0)
        up = self.lowest + (self.highest - self.lowest) * after
        return jnp.where(step <= self.turn, down, up)
