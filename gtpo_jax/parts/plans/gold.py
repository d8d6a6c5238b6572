"""Gold trajectories as members of groups (TempSamp-R1, arXiv 2509.18056; GCPO, 2510.07790)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.parts.plans.moment import (
    NOW,
    WRITE_ANSWER,
    HostedPlan,
    Moment,
    Need,
    all_failed,
    check_field,
    failed,
)
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory

When = Literal["always", "all_failed"]


def gold_script(problem: Problem, field: str | None, moment: Moment) -> tuple[str, ...]:
    """The turns of the gold trajectory: those of `Problem.info[field]`, a text or a list of them.

    None: one turn with the gold answer alone, in the form of the dialogue.
    """
    if field is None:
        return (moment.ask(WRITE_ANSWER)("", problem.answer),)
    found = problem.info[field]
    turns = (found,) if isinstance(found, str) else found
    if not (isinstance(turns, Sequence) and turns and all(isinstance(t, str) for t in turns)):
        raise ValueError(
            f"the gold turns {field!r} of problem {problem.id!r} must be a text or a list of texts,"
            f" got {found!r}"
        )
    return tuple(turns)


def admitted(trajectory: Trajectory) -> Trajectory:
    """The gold trajectory as a member: the rules of the dialogue are for the policy, not for it."""
    turns = tuple(dataclasses.replace(turn, violation=None) for turn in trajectory.turns)
    return dataclasses.replace(trajectory, turns=turns, off_policy=True)


def with_gold(*, when: When = "always", field: str | None = None) -> Plan:
    """Independent samples and a gold trajectory, which the tool and the verifier see as any other.

    `always`: `size − 1` samples and the gold trajectory, the last of the group. `all_failed`:
    `size` samples, the first of which it replaces if none is a success. It is sample `size`, and
    has no log-probs, so `Training` gives it those of the policy that a step begins with.
    """

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        def gold() -> Request:
            script = gold_script(problem, field, moment)
            return Request(problem=problem, group=group, sample=size, script=script)

        def sampled(count: int) -> list[Request]:
            return [Request(problem=problem, group=group, sample=n) for n in range(count)]

        if when == "always":
            *members, added = yield [*sampled(size - 1), gold()]
            return [*members, admitted(added)]
        members = yield sampled(size)
        if all_failed(members):
            [added] = yield [gold()]
            members[failed(members)[0]] = admitted(added)
        return members

    def check(problem: Problem) -> None:
        if field is not None:
            check_field(problem, field, "the gold turns")

    return HostedPlan(
        episodes=episodes,
        sampled=lambda size: size + (when == "all_failed"),
        off_policy=True,
        needs=(Need(WRITE_ANSWER),) if field is None else (),
        check=check,
    )
