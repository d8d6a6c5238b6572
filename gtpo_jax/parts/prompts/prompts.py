"""Prompts: which problems come next, how many rollouts each gets, which groups are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from gtpo_jax.types import Trajectory

State = Any
"""State of a source of prompts: an opaque pytree of arrays, `()` if there is none."""

SignalFn = Callable[[Sequence[Trajectory]], bool]
"""`(all trajectories of a group) → bool`: True if the group is worth training on."""


class Proposal(NamedTuple):
    """The problems that a step may try, in the order in which it tries them."""

    problems: np.ndarray  # [P] int64, numbers of training problems
    group_sizes: np.ndarray  # [P] int64, trajectories per problem


class Propose(Protocol):
    """Proposes the problems of a step, of which `wanted` groups are to be kept; it may propose
    `rounds` times as many.
    """

    def __call__(
        self, state: State, key: jax.Array, step: int, *, wanted: int, group_size: int
    ) -> Proposal: ...


Observe = Callable[[State, np.ndarray, np.ndarray], State]
"""`(state, problems [P], success rates [P]) → state`, after a step, for the problems that were
tried. The rate is the share of successes among included trajectories; NaN if none was included."""


class Prompts(NamedTuple):
    """Pure functions around a state, which is checkpointed with the run."""

    init: Callable[[int | None], State]  # number of training problems (None: endless) → state
    propose: Propose
    observe: Observe
    has_signal: SignalFn
    rounds: int = 1  # maximum rollouts per step


def all_groups(group: Sequence[Trajectory]) -> bool:
    """Every group is worth training on."""
    del group
    return True
