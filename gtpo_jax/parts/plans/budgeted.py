"""A prompt that states how many tokens its response may take."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment
from gtpo_jax.parts.plans.plan import Episodes
from gtpo_jax.parts.plans.texts import check_template, fill
from gtpo_jax.types import Problem, Request

Budget = Callable[[int], float]
"""`step → tokens`."""


def budgeted(budget: Budget, *, template: str) -> HostedPlan:
    """Independent samples whose prompt states the token budget of the step, a whole number.

    `template` holds `{question}` and `{budget}`. A budget that never grows with the step makes no
    prompt longer than that of step 0, which is checked against the room before work begins.
    """
    check_template("template", template, "question", "budget")

    def asked(problem: Problem, step: int) -> str:
        return fill(template, question=problem.question, budget=str(round(budget(step))))

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        question = asked(problem, moment.step)
        return (
            yield [
                Request(problem=problem, group=group, sample=sample, question=question)
                for sample in range(size)
            ]
        )

    return HostedPlan(episodes=episodes, questions=lambda problem: [asked(problem, 0)])
