"""Values of turn boundaries by fresh rollouts from each of them (VinePPO, arXiv 2410.01679)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory

FACT = "turn_values"
"""Name of the fact of trajectories: the value of what stands before each turn."""

Score = Callable[[Trajectory], float]
"""The total reward of a trajectory whose value is estimated."""


def success(trajectory: Trajectory) -> float:
    """1 for a success, else 0."""
    return float(trajectory.success)


def valued(*, rollouts: int = 9, score: Score = success, turns: int = 4) -> Plan:
    """`size` samples; then `rollouts` further samples from before each of their turns, whose mean
    score is the value of the boundary. They are not trained.

    All members share the value of the prompt. Rollouts of unknown outcome do not count; a boundary
    without a known one has the value of the boundary before it, or 0. `turns` is the number of
    turns of a trajectory that `Plan.sampled` reckons with.
    """
    checks.check_positive("rollouts", rollouts, hint="it counts samples per boundary, 9 usual")
    checks.check_positive("turns", turns, hint="it counts turns of a trajectory")

    def episodes(problem: Problem, group: int, size: int) -> Episodes:
        members = yield [Request(problem=problem, group=group, sample=n) for n in range(size)]
        # A turn that was cut off has no boundary after it; nor has the last one.
        places = [
            (index, k)
            for index, member in enumerate(members)
            if member.included
            for k in range(1, len(member.turns))
        ]
        beginnings = [(), *(members[index].turns[:k] for index, k in places)]
        tried = yield [
            Request(problem=problem, group=group, sample=size + n * rollouts + m, turns=beginning)
            for n, beginning in enumerate(beginnings)
            for m in range(rollouts)
        ]
        means = [
            _mean_score(tried[n * rollouts : (n + 1) * rollouts], score)
            for n in range(len(beginnings))
        ]
        first = means[0] if means[0] is not None else 0.0
        known = dict(zip(places, means[1:], strict=True))
        return [
            dataclasses.replace(t, facts={**t.facts, FACT: _values(first, known, index, t)})
            for index, t in enumerate(members)
        ]

    def sampled(size: int) -> int:
        return size + rollouts * (1 + size * (turns - 1))

    return Plan(episodes=episodes, sampled=sampled)


def _mean_score(trajectories: Sequence[Trajectory], score: Score) -> float | None:
    scores = [score(trajectory) for trajectory in trajectories if trajectory.included]
    return sum(scores) / len(scores) if scores else None


def _values(
    first: float, known: dict[tuple[int, int], float | None], index: int, member: Trajectory
) -> tuple[float, ...]:
    """The value before each turn of a member."""
    values = [first] * min(len(member.turns), 1)
    for k in range(1, len(member.turns)):
        value = known.get((index, k))
        values.append(values[-1] if value is None else value)
    return tuple(values)
