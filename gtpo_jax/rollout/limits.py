"""Shapes and budgets of a rollout, and how the programs are given theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import jax
import numpy as np

from gtpo_jax.settings import Changeable, Rounded

MAY_BE_ZERO = ("parked", "lockstep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutLimits:
    """Shapes and budgets of a rollout. Token counts include markers."""

    slots: Rounded[int] = 128  # trajectories decoded at once
    parked: Rounded[int] = 0  # further trajectories that wait for their tools, caches kept
    context: int = 160  # tokens of a trajectory: prompt, turns and observations
    prompt_tokens: int = 48  # longest prompt
    max_turns: int = 4  # of a trajectory
    turn_tokens: int = 40  # tokens of one turn
    observation_tokens: int = 32  # tokens of one observation; more tool output is cut
    segment_steps: Rounded[int] = 16  # decode steps between two looks at the tools
    prefill_prompts: Rounded[int] = 8  # prompts of one prefill call
    extend_width: Rounded[int] = 32  # tokens of one extend call
    first_cache: Rounded[int] = 512  # positions of the cache at first; it doubles up to the context
    lockstep: Changeable[bool] = False
    """Between two segments all calls are waited for. Which rows are decoded together then does not
    depend on how long tools take, and equal seeds give equal log-probs, to the last bit."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in MAY_BE_ZERO else 1
            if value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
        if self.prompt_tokens >= self.context:
            raise ValueError(
                f"a context of {self.context} tokens leaves no room behind prompts of"
                f" {self.prompt_tokens}; raise context or lower prompt_tokens"
            )

    # Shapes come in a few sizes, since a program is compiled for each of them.

    @property
    def cache_lengths(self) -> tuple[int, ...]:
        """Positions that the cache may have, ascending."""
        lengths = [max(self.first_cache, self.prompt_tokens)]
        while lengths[-1] < self.context:
            lengths.append(2 * lengths[-1])
        return (*lengths[:-1], self.context)

    @property
    def prompt_counts(self) -> tuple[int, ...]:
        """Prompts of a prefill call: none, when rows only copy those of others; one; or all."""
        return tuple(sorted({0, 1, self.prefill_prompts}))

    @property
    def prompt_widths(self) -> tuple[int, ...]:
        return tuple(sorted({-(-self.prompt_tokens // 4), self.prompt_tokens}))


def fitting(sizes: Sequence[int], needed: int) -> int:
    """The first of the ascending sizes that is `needed` or more."""
    return next(size for size in sizes if size >= needed)


def given(array: np.ndarray | np.generic) -> jax.Array:
    """For a jitted program, which takes it as it is; to convert it would be a program more."""
    return cast(jax.Array, array)
