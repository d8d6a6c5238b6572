"""Guided correction of failures (EDGE-GRPO, arXiv 2507.21848)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.parts.facts import from_plan
from gtpo_jax.parts.plans.moment import (
    NOW,
    WRITE_ANSWER,
    HostedPlan,
    Moment,
    Need,
    WriteAnswer,
    check_field,
    failed,
)
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import plain
from gtpo_jax.types import Problem, Request, Trajectory

Way = Literal["reflect", "answer", "solution"]
WAYS: tuple[Way, ...] = ("reflect", "answer", "solution")

GUIDED = from_plan(
    "guided",
    "[M] int32, 0 for a sample; 1, 2, 3 for a failure that got a cue, the answer, or the solution",
    missing=0,
)
CUE = " Wait! Something is wrong here. "
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


def correction(
    wrong: Trajectory, way: Way, sample: int, write: WriteAnswer, solution: str | None
) -> Request:
    """The request that corrects a failure.

    With a cue or the answer, it goes on with the turns before the last, and with the text of the
    last, whose answer is no answer any more. The solution begins anew.
    """
    problem = wrong.problem
    request = Request(problem=problem, group=wrong.group, sample=sample)
    if way == "solution":
        assert solution is not None
        return dataclasses.replace(request, script=reference_solution(problem, solution, write))
    said = plain(wrong.turns[-1]) if wrong.turns else ""
    request = dataclasses.replace(request, turns=wrong.turns[:-1])
    if way == "reflect":
        return dataclasses.replace(request, opening=said + CUE)
    return dataclasses.replace(request, script=(write(said + CUE + VERIFIED, problem.answer),))


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
        write = moment.ask(WRITE_ANSWER)
        ways = [choose(moment, problem, n, solution=solution is not None) for n in wrong]
        changed = yield [
            correction(members[n], way, size + n, write, solution)
            for n, way in zip(wrong, ways, strict=True)
        ]
        for n, way, trajectory in zip(wrong, ways, changed, strict=True):
            facts = {**trajectory.facts, GUIDED.name: 1 + WAYS.index(way)}
            members[n] = dataclasses.replace(trajectory, facts=facts)
        return members

    def check(problem: Problem) -> None:
        if solution is not None:
            check_field(problem, solution, "the reference solution")

    return HostedPlan(
        episodes=episodes,
        sampled=lambda size: 2 * size,
        off_policy=True,
        needs=(Need(WRITE_ANSWER),),
        check=check,
    )
