"""A greedy twin: one more rollout of the group, without chance, as a baseline (ReMax)."""

from __future__ import annotations

import dataclasses

from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request

FACT = "greedy"
"""Name of the fact of trajectories: 1 for the greedy twin, 0 for the others."""


def greedy_twin() -> Plan:
    """`size` samples, and one rollout that takes the likeliest token at every step.

    The twin is the last member of the group. It takes part in the credit and is not trained.
    """
    return Plan(episodes=_episodes, returned=_one_more, sampled=_one_more)


def _one_more(size: int) -> int:
    return size + 1


def _episodes(problem: Problem, group: int, size: int) -> Episodes:
    members = yield [
        Request(problem=problem, group=group, sample=n, temperature=float(n < size))
        for n in range(size + 1)
    ]
    marked = [
        dataclasses.replace(t, facts={**t.facts, FACT: int(n == size)})
        for n, t in enumerate(members)
    ]
    return [*marked[:size], dataclasses.replace(marked[size], trained=False)]
