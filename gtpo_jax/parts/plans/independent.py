"""Independent samples: the group of GRPO."""

from __future__ import annotations

from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request


def independent() -> Plan:
    """`size` samples of the policy for the same prompt."""
    return Plan(episodes=_episodes)


def _episodes(problem: Problem, group: int, size: int) -> Episodes:
    return (yield [Request(problem=problem, group=group, sample=sample) for sample in range(size)])
