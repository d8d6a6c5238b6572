"""Hints for groups that fail as a whole (Scaf-GRPO, arXiv 2510.19807)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gtpo_jax.maths import checks
from gtpo_jax.parts.facts import Fact, from_plan
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment, all_failed, failed
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import check_template, fill
from gtpo_jax.types import Problem, Request, Trajectory

HINT_LEVELS: Fact = from_plan(
    "hint_levels", "[M] int32, level of the hint in the prompt, from 1; 0 without a hint", missing=0
)


class Hint(NamedTuple):
    """A hint, and its level: the smallest is tried first."""

    level: int
    label: str
    text: str


def hints(problem: Problem, fields: Mapping[str, str], *, parts: int) -> Iterator[Hint]:
    """The hints of a problem: tier by tier, with the first part of a tier, then two, up to `parts`.

    `fields` is name in `Problem.info` → label of the tier. A field is a text, or a list of parts.
    Level `t · parts + n` has the first n parts of tier t; levels without a further part are left
    out.
    """
    for tier, (name, label) in enumerate(fields.items()):
        found = problem.info.get(name) or ()
        texts = [found] if isinstance(found, str) else list(found)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"the hints {name!r} of problem {problem.id!r} must be a text or a list of texts,"
                f" got {found!r}"
            )
        for count in range(1, min(len(texts), parts) + 1):
            yield Hint(tier * parts + count, label, " ".join(texts[:count]))


def replaced(group: Sequence[Trajectory], others: Sequence[Trajectory]) -> list[Trajectory] | None:
    """The group with its first failure replaced by the first success of `others`; None if there is
    no success, or no failure.
    """
    successes = [t for t in others if t.included and t.success]
    places = failed(group)
    if not (successes and places):
        return None
    changed = list(group)
    changed[places[0]] = successes[0]
    return changed


def hinted(
    fields: Mapping[str, str],
    *,
    parts: int = 4,
    exempt: int = 50,
    at_once: int = 4,
    template: str = "{question}\n{label}: {hint}",
) -> Plan:
    """Independent samples; where all fail, one is replaced by a sample that saw a hint.

    Hints are tried in the order of `hints`, `at_once` in a round, and the success with the smallest
    level takes the place of the first failure. Its prompt is `template`, so its ratio is that of
    its own prompt. The first `exempt` steps give no hints. How many are tried at once changes the
    rollouts, not the group.
    """
    checks.check_positive("parts", parts, hint="it counts the levels of a tier, 4 in the paper")
    checks.check_positive("at_once", at_once, hint="it counts hints, each of which is one rollout")
    check_template("template", template, "question", "label", "hint")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        members = yield [Request(problem=problem, group=group, sample=n) for n in range(size)]
        if moment.step < exempt or not all_failed(members):
            return members
        left = list(hints(problem, fields, parts=parts))
        while left:
            tried, left = left[:at_once], left[at_once:]
            given = yield [
                Request(
                    problem=problem,
                    group=group,
                    sample=size + hint.level - 1,
                    question=question_of(problem, hint),
                )
                for hint in tried
            ]
            marked = [
                dataclasses.replace(t, facts={**t.facts, HINT_LEVELS.name: hint.level})
                for t, hint in zip(given, tried, strict=True)
            ]
            changed = replaced(members, marked)
            if changed is not None:
                return changed
        return members

    def check(problem: Problem) -> None:
        if next(hints(problem, fields, parts=parts), None) is None:
            raise ValueError(
                f"the plan reads hints from the fields {', '.join(fields)} of a problem's record;"
                f" problem {problem.id!r} has none of them"
            )

    def question_of(problem: Problem, hint: Hint) -> str:
        return fill(template, question=problem.question, label=hint.label, hint=hint.text)

    return HostedPlan(
        episodes=episodes,
        sampled=lambda size: size + parts * len(fields),
        check=check,
        questions=lambda problem: [
            question_of(problem, hint) for hint in hints(problem, fields, parts=parts)
        ],
    )
