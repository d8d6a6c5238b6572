"""Rows of the suite of plans: those that ask services of other runs or of the run's folder."""

import dataclasses

from gtpo_jax import methods
from gtpo_jax.parts.plans.swarm import Rollout, Shared
from gtpo_jax.types import Problem
from tests.methods.plan_relatives import Row, by_chance, on_grpo


@dataclasses.dataclass
class Others:
    """Other runs, in memory."""

    shared: list
    given: list = dataclasses.field(default_factory=list)

    def groups(self, step):
        return self.shared

    def share(self, step, group, members):
        self.given.append((step, group, [t.sample for t in members]))


@dataclasses.dataclass
class Lessons:
    """Experiences, in memory."""

    list: list
    edits: list = dataclasses.field(default_factory=list)

    def texts(self, step):
        return self.list

    def edit(self, step, group, edits):
        self.edits.append((step, group, edits))


def external(name, claims, question="q", scripts=None):
    made = Problem(id="theirs", question=question, answer="4")
    texts = scripts or [f"{name} {n}" for n in range(len(claims))]
    rollouts = tuple(Rollout((t,), bool(c)) for t, c in zip(texts, claims, strict=True))
    return Shared(name, made, rollouts)


def swarm_of_two():
    same = external("x/9", [1, 0], question="qa {x}")
    return {"swarm": Others([external(f"x/{n}", [1, 0, 1]) for n in range(3)] + [same])}


ROWS: dict[str, Row] = {
    "sapo_swarm": Row(
        on_grpo(methods.sapo_swarm(local=2, external=1, joined=2)),
        verdict=by_chance,
        services=swarm_of_two,
        rewritten=True,
    ),
    "training_free_grpo": Row(
        on_grpo(methods.training_free_grpo()),
        services=lambda: {"experiences": Lessons(["be short"])},
    ),
}
