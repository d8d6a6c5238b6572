"""Refinements of the best of several drafts (iGRPO, arXiv 2602.09000)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import attempt, check_template, fill
from gtpo_jax.types import Problem, Request, Trajectory

ScoreDraft = Callable[[Trajectory], float]
"""The score of a draft; larger is better."""

REFINE = (
    "{question}\n\nHere is an earlier attempt:\n{draft}\n\nIt may be wrong. Solve the problem, and"
    " do better."
)


def outcome(trajectory: Trajectory) -> float:
    """1 for a success, 0 for a failure, −1 if the outcome is unknown."""
    return float(trajectory.success) if trajectory.included else -1.0


def best(drafts: Sequence[Trajectory], score: ScoreDraft) -> int:
    """The index of the draft with the largest score, the first of equal ones."""
    scores = [score(draft) for draft in drafts]
    return scores.index(max(scores))


def refined(
    *,
    drafts: int = 4,
    score: ScoreDraft = outcome,
    template: str = REFINE,
    longest: int = 2000,
) -> Plan:
    """`drafts` samples, then `size` samples whose prompt holds the best of them: these are the
    group.

    The drafts are not trained. A draft takes part even if all are wrong. Its text has at most
    `longest` characters in the prompt.
    """
    checks.check_positive("drafts", drafts, hint="it counts samples that are not trained")
    checks.check_positive("longest", longest, hint="it bounds the text of a draft")
    check_template("template", template, "question", "draft")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        del moment
        tried = yield [Request(problem=problem, group=group, sample=n) for n in range(drafts)]
        chosen = tried[best(tried, score)]
        question = fill(template, question=problem.question, draft=attempt(chosen, longest))
        refinements = yield [
            Request(problem=problem, group=group, sample=drafts + n, question=question)
            for n in range(size)
        ]
        found = {"draft_success": float(chosen.success)}
        return [dataclasses.replace(t, facts={**t.facts, **found}) for t in refinements]

    return HostedPlan(episodes=episodes, sampled=lambda size: drafts + size)
