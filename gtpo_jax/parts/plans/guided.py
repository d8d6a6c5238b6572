"""Guided correction of failures (EDGE-GRPO, arXiv 2507.21848)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.parts.facts import from_plan
from gtpo_jax.parts.plans.moment import (
    NOW,
    OBSERVE,
    WRITE_ANSWER,
    HostedPlan,
    Moment,
    Need,
    Observe,
    WriteAnswer,
    check_field,
    failed,
)
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory, Turn

Way = Literal["reflect", "answer", "solution"]
WAYS: tuple[Way, ...] = ("reflect", "answer", "solution")

GUIDED = from_plan(
    "guided",
    "[M] int32, 0 for a sample; 1, 2, 3 for a failure that got a cue, the answer, or the solution",
    missing=0,
)
CUE = "Wait! Something is wrong here."
VERIFIED = "After verification, the answer is "


def choose(moment: Moment, problem: Problem, sample: int, *, solution: bool) -> Way:
    """The way in which a failure is corrected: a cue with probability 1/2, else the answer or the
    solution, with 1/4 each; the answer with 1/2 where there is no solution.
    """
    dice = moment.dice(problem, sample, "guide")
    if dice.random() < 0.5:
        return "reflect"
    return "solution" if solution and dice.random() < 0.5 else "answer"


def reference_solution(problem: Problem, field: str, write: WriteAnswer) -> tuple[str, ...]:
    """The turns of the solution in `Problem.info[field]`: a list of turns as it stands, a text as
    the thought before the gold answer.
    """
    found = problem.info[field]
    if isinstance(found, str):
        return (write(f"{found}\n", problem.answer),)
    turns = tuple(found) if isinstance(found, Sequence) else ()
    if not turns or not all(isinstance(turn, str) for turn in turns):
        raise ValueError(
            f"the solution {field!r} of problem {problem.id!r} must be a text or a list of turns,"
            f" got {found!r}"
        )
    return turns


def begun_anew(wrong: Trajectory, moment: Moment) -> tuple[Turn, ...]:
    """The turns of a failure, the cue as what its last turn sees.

    Where there is no room for another turn, the last turn is left out, and the cue with it.
    """
    if len(wrong.turns) >= moment.max_turns:
        return wrong.turns[:-1]
    observe: Observe = moment.ask(OBSERVE)
    return tuple([*wrong.turns[:-1], *(observe(turn, CUE) for turn in wrong.turns[-1:])])


def correction(
    wrong: Trajectory, way: Way, sample: int, moment: Moment, solution: str | None
) -> Request:
    """The request that corrects a failure: it goes on after the cue, alone or with the answer, or
    begins anew with the solution.
    """
    problem, write = wrong.problem, moment.ask(WRITE_ANSWER)
    request = Request(problem=problem, group=wrong.group, sample=sample)
    if way == "solution":
        assert solution is not None
        return dataclasses.replace(request, script=reference_solution(problem, solution, write))
    request = dataclasses.replace(request, turns=begun_anew(wrong, moment))
    if way == "reflect":
        return request
    return dataclasses.replace(request, script=(write(VERIFIED, problem.answer),))


def guided(*, solution: str | None = "solution") -> Plan:
    """Independent samples, each failure of which is replaced by a correction of it.

    `solution` is the field of `Problem.info` that holds the reference solution; None: there is
    none. The correction of sample n is sample `size + n`.
    """

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        members = yield [Request(problem=problem, group=group, sample=n) for n in range(size)]
        wrong = failed(members)
        if not wrong:
            return members
        ways = [choose(moment, problem, n, solution=solution is not None) for n in wrong]
        changed = yield [
            correction(members[n], way, size + n, moment, solution)
            for n, way in zip(wrong, ways, strict=True)
        ]
        for n, way, trajectory in zip(wrong, ways, changed, strict=True):
            facts = {**trajectory.facts, GUIDED.name: 1 + WAYS.index(way)}
            # The failure is in no other row, so that its turns are this row's own.
            members[n] = dataclasses.replace(trajectory, facts=facts, shared_turns=0)
        return members

    def check(problem: Problem) -> None:
        if solution is not None:
            check_field(problem, solution, "the reference solution")

    return HostedPlan(
        episodes=episodes,
        sampled=lambda size: 2 * size,
        off_policy=True,
        needs=(Need(WRITE_ANSWER), Need(OBSERVE)),
        check=check,
    )
