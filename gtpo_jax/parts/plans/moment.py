"""The moment a plan runs in: its seed, its step, and the services that its host provides."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gtpo_jax.parts.plans.plan import Plan
from gtpo_jax.types import Problem, Trajectory, Turn


class Service(NamedTuple):
    """A function of the host that a plan calls, such as one that reads a folder."""

    name: str
    meaning: str
    provider: str  # who provides it, for errors


class Moment(NamedTuple):
    """What a plan knows beside its problem. Equal moments give equal requests."""

    seed: int = 0
    step: int = 0  # number of the training step, from 0
    services: Mapping[str, Any] = {}  # by name
    max_turns: int = 1_000_000  # maximum turns per trajectory

    def dice(self, problem: Problem, sample: int, purpose: str) -> random.Random:
        """Random numbers of one trajectory for one purpose."""
        return random.Random(f"{self.seed}/{purpose}/{self.step}/{problem.id}/{sample}")

    def ask(self, service: Service) -> Any:
        """The function of a service. Raises `ValueError` if the host does not provide it."""
        if service.name not in self.services:
            raise ValueError(
                f"the plan needs the service {service.name!r} ({service.meaning}), the host"
                f" provides {', '.join(sorted(self.services)) or 'none'}; {service.provider}"
            )
        return self.services[service.name]


NOW = Moment()
"""The first step, without a host."""


class Need(NamedTuple):
    """A service that a plan needs, and the options that the host makes it with."""

    service: Service
    options: Mapping[str, Any] = {}


def accept(problem: Problem) -> None:
    """Every problem will do."""
    del problem


def no_questions(problem: Problem) -> Iterable[str]:
    """No prompt is known beforehand but the plain one."""
    del problem
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostedPlan(Plan):
    """A plan whose episodes also depend on the moment, their fourth argument."""

    needs: tuple[Need, ...] = ()
    check: Callable[[Problem], None] = accept
    """Raises `ValueError` for a problem whose record lacks what the plan reads."""
    questions: Callable[[Problem], Iterable[str]] = no_questions
    """Questions other than the problem's that prompts may ask, if they are known beforehand."""


def at_moment(plan: Plan, moment: Moment) -> Plan:
    """The plan as it is at a moment. Raises `ValueError` if a service is missing."""
    if not isinstance(plan, HostedPlan):
        return plan
    for need in plan.needs:
        moment.ask(need.service)
    return dataclasses.replace(plan, episodes=functools.partial(plan.episodes, moment=moment))


WriteAnswer = Callable[[str, str], str]
"""`(thought, answer) → text` of a turn that answers, as `Request.script` takes it."""

Observe = Callable[[Turn, str], Turn]
"""`(turn, output) → turn` whose observation is the output, in the form of the dialogue."""

BY_DIALOGUE = "`rollout.services` makes it from a dialogue, as `launch.train` does"
WRITE_ANSWER = Service("write_answer", "writes an answer as a turn of the dialogue", BY_DIALOGUE)
OBSERVE = Service("observe", "adds an observation to a turn", BY_DIALOGUE)


def failed(group: Iterable[Trajectory]) -> list[int]:
    """Indices of the trajectories of known outcome that are no success."""
    return [index for index, t in enumerate(group) if t.included and not t.success]


def all_failed(group: Iterable[Trajectory]) -> bool:
    """True if outcomes are known and none is a success."""
    known = [trajectory.success for trajectory in group if trajectory.included]
    return bool(known) and not any(known)


def check_field(problem: Problem, field: str, what: str) -> None:
    """Raises `ValueError` if the record of a problem lacks a field that a plan reads."""
    if field not in problem.info:
        raise ValueError(
            f"the plan reads {what} from the field {field!r} of a problem's record; problem"
            f" {problem.id!r} lacks it"
        )
