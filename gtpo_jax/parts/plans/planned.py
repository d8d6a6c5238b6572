"""Several solutions after each plan (PTA-GRPO, arXiv 2510.01833)."""

from __future__ import annotations

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory


def planned(*, solutions: int = 3) -> Plan:
    """`size // solutions` samples, whose first turn is a plan, and `solutions − 1` further samples
    that go on after each plan: all of them are the group.

    A sample that ended with its first turn has no plan to go on after; then the rest of its
    samples begin anew. The size must be a multiple of `solutions`.
    """
    checks.check_positive("solutions", solutions, hint="it counts the solutions of a plan, 3 usual")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        del moment
        if size % solutions:
            raise ValueError(
                f"a group of {size} cannot hold {solutions} solutions of every plan; choose"
                f" train.group_size as a multiple of {solutions}"
            )
        plans = size // solutions
        first = yield [Request(problem=problem, group=group, sample=n) for n in range(plans)]
        if solutions == 1:
            return first
        others = yield [
            Request(
                problem=problem,
                group=group,
                sample=plans + n * (solutions - 1) + m,
                turns=_plan_of(first[n]),
            )
            for n in range(plans)
            for m in range(solutions - 1)
        ]
        return [*first, *others]

    return HostedPlan(episodes=episodes)


def _plan_of(trajectory: Trajectory) -> tuple:
    """The first turn if others follow it."""
    return trajectory.turns[:1] if len(trajectory.turns) > 1 else ()
