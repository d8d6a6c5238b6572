"""Samples that correct those of a first layer (multi-layer GRPO, arXiv 2506.04746)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gtpo_jax.maths import checks
from gtpo_jax.parts.facts import from_plan
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import attempt, check_template, fill
from gtpo_jax.types import Problem, Request

PROVIDER = "the plan of `mgrpo` records it"
LAYERS = from_plan(
    "layers", "[M] int32, 0 for a first response, 1 for a correction", provider=PROVIDER
)
FAMILIES = from_plan(
    "correction_groups",
    "[M] int32, 0 for first responses, 1 + the index of its first response for a correction",
    provider=PROVIDER,
)
PARENT_SUCCESS = from_plan(
    "parent_success",
    "[M] bool, True for a correction whose first response was a success",
    provider=PROVIDER,
    kind=bool,
)

PHRASES = (
    "Look for a mistake in it, and correct it.",
    "Check every step. If one is wrong, solve the problem again from there.",
    "Is it right? Verify it, and then answer.",
)
CORRECT = "{question}\n\nHere is an earlier response:\n{response}\n\n{phrase}"


def corrected(
    *,
    corrections: int = 4,
    phrases: Sequence[str] = PHRASES,
    template: str = CORRECT,
    longest: int = 2000,
) -> Plan:
    """`size` samples, then `corrections` samples for each, whose prompt holds it and one of the
    `phrases`: all of them are the group.

    The corrections of one response share its phrase, so their prompts are equal. A response of
    unknown outcome gets none. Samples are numbered `size + i · corrections + h` for response i.
    """
    checks.check_positive("corrections", corrections, hint="it counts the samples of each response")
    checks.check_positive("longest", longest, hint="it bounds the text of a response")
    check_template("template", template, "question", "response", "phrase")
    if not phrases:
        raise ValueError("phrases must hold at least one text that asks for a correction, got none")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        first = yield [Request(problem=problem, group=group, sample=n) for n in range(size)]
        parents = [index for index, response in enumerate(first) if response.included]
        questions = {
            index: fill(
                template,
                question=problem.question,
                response=attempt(first[index], longest),
                phrase=moment.dice(problem, index, "phrase").choice(phrases),
            )
            for index in parents
        }
        places = [(index, turn) for index in parents for turn in range(corrections)]
        second = yield [
            Request(
                problem=problem,
                group=group,
                sample=size + index * corrections + turn,
                question=questions[index],
            )
            for index, turn in places
        ]
        of_first = {LAYERS.name: 0, FAMILIES.name: 0, PARENT_SUCCESS.name: False}
        return [
            *(dataclasses.replace(t, facts={**t.facts, **of_first}) for t in first),
            *(
                dataclasses.replace(
                    t,
                    facts={
                        **t.facts,
                        LAYERS.name: 1,
                        FAMILIES.name: 1 + index,
                        PARENT_SUCCESS.name: first[index].success,
                    },
                )
                for t, (index, _) in zip(second, places, strict=True)
            ),
        ]

    def capacity(size: int) -> int:
        return size * (1 + corrections)

    return HostedPlan(episodes=episodes, returned=capacity, sampled=capacity)
