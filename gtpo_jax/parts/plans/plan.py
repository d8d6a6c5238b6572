"""A plan: which episodes a problem gets, and which follow them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence

from gtpo_jax.types import Problem, Request, Trajectory

Episodes = Generator[Sequence[Request], list[Trajectory], list[Trajectory]]
"""A generator that yields requests, receives their trajectories in the same order, and returns the
trajectories of the group."""

EpisodesFn = Callable[[Problem, int, int], Episodes]
"""`(problem, group, size) → Episodes`: a generator in Python, one for each group.

`group` is the number of the group, which its requests carry; their `sample` numbers are distinct,
also between rounds. `size` is the number of trajectories that the prompts part asks for. All plans
of a round yield their requests together, so their rollouts share the rows of the device. A plan is
a function of what it receives: random choices of its own would not be repeated by a resumed run."""

Capacity = Callable[[int], int]
"""`size → largest number of trajectories`, a function that grows no faster than `size`: for
`a · size + b` groups of different sizes take no more than as many groups of their mean size."""


def as_asked(size: int) -> int:
    """The capacity of a plan with `size` trajectories."""
    return size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A way to fill a group, with the capacities that shapes and memory are computed from.

    Called as `plan(problem, group, size)`, it starts the generator of a group.
    """

    episodes: EpisodesFn
    returned: Capacity = as_asked
    """Largest number of trajectories that a group of `size` returns: those that are trained on."""
    sampled: Capacity = as_asked
    """Largest number of trajectories that a group of `size` requests in all its rounds."""
    candidates: int = 0
    """Likeliest tokens that the sampler must record beside each draw; see `Turn.candidates`."""
    off_policy: bool = False
    """Some trajectories are written for the policy; a step computes their log-probs."""

    def __call__(self, problem: Problem, group: int, size: int) -> Episodes:
        return self.episodes(problem, group, size)
