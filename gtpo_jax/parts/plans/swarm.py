"""Groups from other runs (SAPO, Swarm sAmpling Policy Optimization, arXiv 2509.08721)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from gtpo_jax.maths import checks
from gtpo_jax.parts.facts import from_plan
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment, Need, Service
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory

Select = Literal["uniform", "best"]

EXTERNAL = from_plan("external", "[M] bool, True for a row of another run", missing=0, kind=bool)


class Rollout(NamedTuple):
    """A trajectory of another run as it reports it."""

    turns: tuple[str, ...]  # texts of its turns, without end markers
    success: bool  # its claim; only the selection of groups reads it


class Shared(NamedTuple):
    """A group of another run."""

    id: str  # unique among all that were ever shared
    problem: Problem
    rollouts: tuple[Rollout, ...]


class Swarm(Protocol):
    """The other runs, as the host reaches them."""

    def groups(self, step: int) -> Sequence[Shared]:
        """The groups of other runs that this step may draw from; the same whenever it is asked."""
        ...

    def share(self, step: int, group: int, members: Sequence[Trajectory]) -> None:
        """Gives a group of this run to the others."""
        ...


SWARM = Service(
    "swarm",
    "shares groups with other runs",
    "`rollout.services.SharedFolder` reads a folder, as `launch.train` does for the method's"
    " address",
)


def draw(shared: Sequence[Shared], count: int, dice: random.Random, select: Select) -> list[Shared]:
    """At most `count` groups whose claimed outcomes differ.

    `uniform` draws them without replacement; `best` takes those with the most claimed successes,
    the last ids first among equals.
    """
    telling = sorted(
        (group for group in shared if len({r.success for r in group.rollouts}) == 2),
        key=lambda group: group.id,
    )
    if select == "uniform":
        dice.shuffle(telling)
        return telling[:count]
    ranked = sorted(telling, key=lambda group: sum(r.success for r in group.rollouts))
    return ranked[::-1][:count]


def swarm(
    *,
    local: int = 4,
    external: int = 4,
    joined: int = 0,
    select: Select = "uniform",
    address: str = "",
) -> Plan:
    """Of every `local + external` groups of a step, the last `external` come from other runs.

    A local group is sampled and shared; up to `joined` rollouts that other runs have of the same
    problem join it. An external group takes the place of a local one: its first `size` rollouts are
    played again with this run's tool, and judged by its verifier, whatever they claim. If there is
    no such group, or its outcomes turn out to be equal, the local problem is sampled.

    External rows have no log-probs, so `Training` gives them those of the learner.
    """
    checks.check_positive("local", local, hint="it counts groups of this run")
    checks.check_range("external", external, 0, 10_000, hint="it counts groups of other runs")
    checks.check_range("joined", joined, 0, 10_000, hint="it counts rollouts of other runs")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        others: Swarm = moment.ask(SWARM)
        shared = others.groups(moment.step)
        block, place = divmod(group, local + external)
        if place >= local:
            rank = block * external + place - local
            dice = random.Random(f"{moment.seed}/swarm/{moment.step}")
            drawn = draw(shared, rank + 1, dice, select)
            if len(drawn) > rank:
                members = yield played(drawn[rank], group, size)
                if len({t.success for t in members if t.included}) == 2:
                    return [foreign(t) for t in members]
        known = [r for s in shared if same_problem(s.problem, problem) for r in s.rollouts]
        requests = [Request(problem=problem, group=group, sample=n) for n in range(size)]
        requests += [
            Request(problem=problem, group=group, sample=2 * size + n, script=rollout.turns)
            for n, rollout in enumerate(known[:joined])
        ]
        answered = yield requests
        members = answered[:size]
        others.share(moment.step, group, members)
        return [*members, *map(foreign, answered[size:])]

    return HostedPlan(
        episodes=episodes,
        returned=lambda size: size + joined,
        sampled=lambda size: 2 * size + joined,
        off_policy=True,
        needs=(Need(SWARM, {"address": address}),),
    )


def played(shared: Shared, group: int, size: int) -> list[Request]:
    """Requests that play the first `size` rollouts of a group again, under the id of the group."""
    problem = dataclasses.replace(shared.problem, id=shared.id)
    return [
        Request(problem=problem, group=group, sample=n, script=rollout.turns)
        for n, rollout in enumerate(shared.rollouts[:size])
    ]


def same_problem(one: Problem, other: Problem) -> bool:
    """True if two problems ask the same and have the same answer."""
    return (one.question, one.answer) == (other.question, other.answer)


def foreign(trajectory: Trajectory) -> Trajectory:
    """A trajectory of another run, marked as such."""
    facts = {**trajectory.facts, EXTERNAL.name: True}
    return dataclasses.replace(trajectory, off_policy=True, facts=facts)
