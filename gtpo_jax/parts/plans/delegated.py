"""A main agent that delegates to sub-agents (M-GRPO, arXiv 2511.13288)."""

from __future__ import annotations

import dataclasses
import re

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.moment import NOW, OBSERVE, HostedPlan, Moment, Need
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import check_template, fill
from gtpo_jax.types import Problem, Request, StopReason, Trajectory

MAIN = "{question}\n\nYou may hand over a part: write <delegate>the question of it</delegate>."
SUB = "{task}"
SYNTAX = re.compile(r"<delegate>(.+?)</delegate>", re.DOTALL)
UNANSWERED = "no answer"


def delegation(trajectory: Trajectory) -> str | None:
    """The task that the last turn of a trajectory hands over; None if it hands over none.

    A turn delegates if it neither calls the tool nor answers, and holds a task between
    `<delegate>` and `</delegate>`; of several the first counts.
    """
    if trajectory.stop_reason is not StopReason.NO_ACTION or not trajectory.turns:
        return None
    found = SYNTAX.search(trajectory.turns[-1].text)
    return found[1].strip() if found else None


def delegated(*, rounds: int = 2, subs: int = 1, main: str = MAIN, sub: str = SUB) -> Plan:
    """`size` main rows, and a sub row, or `subs` of them, for each task that a main row hands over,
    in at most `rounds` rounds.

    The answer of the first sub row of a task is the observation of the turn that handed it over;
    then the main row goes on. A turn that delegates breaks no rule. Sub rows are trajectories of
    their own, whose prompt is `sub`, and whose verdict is that of their main row. Facts: `agents`
    is 0 for a main row and 1 for a sub row, `parents` the sample of the main row.

    Samples are numbered by main row m, round r and sub s, whatever the other rows do: `m` for a
    main row, then `size + (m · rounds + r) · (subs + 1)` for its continuation, and s + 1 more for
    its sub rows.
    """
    checks.check_positive("rounds", rounds, hint="it counts the delegations of a main row")
    checks.check_positive("subs", subs, hint="it counts the sub rows of a task")
    check_template("main", main, "question")
    check_template("sub", sub, "task")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        question = fill(main, question=problem.question)
        mains = yield [
            Request(problem=problem, group=group, sample=n, question=question) for n in range(size)
        ]
        workers: list[Trajectory] = []
        for number in range(rounds):
            tasks = {
                n: task
                for n, row in enumerate(mains)
                if (task := delegation(row)) and len(row.turns) < moment.max_turns
            }
            if not tasks:
                break
            begin = {n: size + (n * rounds + number) * (subs + 1) for n in tasks}
            answers = yield [
                Request(
                    problem=problem,
                    group=group,
                    sample=begin[n] + 1 + s,
                    question=fill(sub, task=task),
                )
                for n, task in tasks.items()
                for s in range(subs)
            ]
            reports = dict(zip(tasks, answers[::subs], strict=True))
            workers += [
                _marked(row, agent=1, parent=n)
                for n, row in zip([n for n in tasks for _ in range(subs)], answers, strict=True)
            ]
            observe = moment.ask(OBSERVE)
            continued = yield [
                Request(
                    problem=problem,
                    group=group,
                    sample=begin[n],
                    question=question,
                    turns=(
                        *mains[n].turns[:-1],
                        dataclasses.replace(
                            observe(mains[n].turns[-1], reports[n].answer or UNANSWERED),
                            violation=None,
                        ),
                    ),
                )
                for n in tasks
            ]
            for n, row in zip(tasks, continued, strict=True):
                mains[n] = row
        # All turns of a main row are its own, whatever request they were written in.
        rows = [
            dataclasses.replace(_marked(row, agent=0, parent=n), sample=n, shared_turns=0)
            for n, row in enumerate(mains)
        ]
        judged = (
            dataclasses.replace(row, verdict=rows[row.facts["parents"]].verdict) for row in workers
        )
        return [*rows, *judged]

    return HostedPlan(
        episodes=episodes,
        returned=lambda size: size * (1 + rounds * subs),
        sampled=lambda size: size * (1 + rounds * (1 + subs)),
        needs=(Need(OBSERVE),),
        questions=lambda problem: [fill(main, question=problem.question)],
    )


def _marked(row: Trajectory, *, agent: int, parent: int) -> Trajectory:
    return dataclasses.replace(row, facts={**row.facts, "agents": agent, "parents": parent})
