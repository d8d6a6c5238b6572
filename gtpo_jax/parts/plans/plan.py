"""A plan: which episodes a problem gets, and which follow them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from gtpo_jax.types import Problem, Request, Trajectory

Episodes = Generator[Sequence[Request], list[Trajectory], list[Trajectory]]
"""Yields requests, is sent their trajectories in the same order, and returns those of the group."""

Plan = Callable[[Problem, int, int], Episodes]
"""`(problem, group, size) → Episodes`: a generator on the host, one for each group.

`group` numbers the group, and its requests carry that number; their `sample` numbers are distinct.
`size` is the number of trajectories that the group is to have. All plans of a round are asked for
requests together, so their rollouts share the rows of the device.
"""
