"""A plan: which episodes a problem gets, and which follow them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from gtpo_jax.types import Problem, Request, Trajectory

Episodes = Generator[Sequence[Request], list[Trajectory], list[Trajectory]]
"""A generator that yields requests, receives their trajectories in the same order, and returns the
trajectories of the group."""

Plan = Callable[[Problem, int, int], Episodes]
"""`(problem, group, size) → Episodes`: a generator in Python, one for each group.

`group` is the number of the group, which its requests carry; their `sample` numbers are distinct.
`size` is the number of trajectories that the group should have. All plans of a round yield their
requests together, so their rollouts share the rows of the device."""
