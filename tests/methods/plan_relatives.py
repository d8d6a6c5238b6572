"""The form of a row of the suite of plans, and a rollout that answers requests without a model.

The fake keeps to what a real one promises: a trajectory depends on the moment, the problem, the
sample and what the request puts in front of it, and on nothing else.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.methods import Method
from gtpo_jax.parts.plans import Moment, Need, at_moment
from gtpo_jax.rollout import RolloutStats
from gtpo_jax.rollout.dynamic import collect_groups
from gtpo_jax.types import (
    Problem,
    Request,
    StopReason,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    Verdict,
)

INFO = {
    "knowledge": ["one", "two"],
    "planning": "first add",
    "solution": ["<code>print(2+2)</code>", "<answer>4</answer>"],
}
SIZE = 4


def problem(name: str) -> Problem:
    return Problem(id=name, question=f"q{name} {{x}}", answer="4", info=INFO)


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def chance(*parts: object) -> float:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def write_answer(thought: str, answer: str) -> str:
    return f"{thought}<answer>{answer}</answer>"


def observe(turn: Turn, output: str) -> Turn:
    return dataclasses.replace(turn, observation=ids(f"[{output}]"))


@dataclasses.dataclass
class FakeRun:
    """Answers requests. `verdict(request, draw)` is a letter: R right, W wrong, U unknown; D hands
    over a task. `draw` is a number in [0, 1) that the moment and the request determine.
    """

    moment: Moment
    verdict: Callable[[Request, float], str]
    requests: list[Request] = dataclasses.field(default_factory=list)
    calls: int = 0

    def __call__(self, requests):
        self.calls += 1
        self.requests += requests
        stats = {field.name: 0 for field in dataclasses.fields(RolloutStats)}
        return [self.answer(request) for request in requests], RolloutStats(**stats)

    def answer(self, request: Request) -> Trajectory:
        question = request.problem.question if request.question is None else request.question
        front = (question, [t.text for t in request.turns], request.opening, request.script)
        moment = self.moment.seed, self.moment.step
        draw = chance(moment, request.problem.id, request.sample, front)
        letter = self.verdict(request, draw)
        turns = [*request.turns, *map(scripted, request.script)]
        if not request.script:
            if chance(draw, "call") < 0.5 and letter != "D":
                turns.append(called(f"think {draw:.4f}"))
            last = {"D": f"<delegate>part {draw:.4f}</delegate>"}.get(
                letter, f"so <answer>{'4' if letter == 'R' else '5'}</answer>"
            )
            turns.append(turn(f"{request.opening}{last}<|end|>", given=len(ids(request.opening))))
        verdicts = {"R": Verdict.RIGHT, "U": Verdict.UNVERIFIABLE}
        return Trajectory(
            problem=request.problem,
            group=request.group,
            sample=request.sample,
            prompt=ids(question),
            turns=tuple(turns),
            stop_reason=StopReason.NO_ACTION if letter == "D" else StopReason.ANSWERED,
            verdict=verdicts.get(letter, Verdict.WRONG),
            answer=None if letter == "D" else "4" if letter == "R" else "5",
            shared_turns=len(request.turns),
            off_policy=bool(request.script),
        )


def turn(text: str, **fields) -> Turn:
    tokens = ids(text)
    return Turn(tokens=tokens, logprobs=np.full(len(tokens), -1.0, np.float32), text=text, **fields)


def called(thought: str) -> Turn:
    result = ToolResult(status=ToolStatus.OK, stdout="4")
    made = turn(f"{thought}<code>2+2</code><|end|>", codes=("2+2",), results=(result,))
    return observe(made, "4")


def scripted(text: str) -> Turn:
    return dataclasses.replace(turn(text), logprobs=np.zeros(0, np.float32), violation="no call")


def by_chance(request: Request, draw: float) -> str:
    return "U" if draw < 0.1 else "R" if draw < 0.5 else "W"


def constant(letter: str) -> Callable[[Request, float], str]:
    return lambda request, draw: letter


Services = Callable[[], Mapping[str, object]]


def usual_services() -> dict[str, object]:
    return {"write_answer": write_answer, "observe": observe}


@dataclasses.dataclass(frozen=True)
class Row:
    """A method with a plan, under test."""

    make: Callable[[], Method]
    neutral: Callable[[], Method] | None = None
    """The method at options where its plan is independent samples."""
    verdict: Callable[[Request, float], str] = by_chance
    services: Services = usual_services
    step: int = 60
    size: int = SIZE
    rewritten: bool = False  # it changes trajectories beyond their facts


@dataclasses.dataclass(frozen=True)
class Played:
    """Groups of a step, and the run that answered."""

    groups: list[list[Trajectory]]
    run: FakeRun


def play(
    row: Row,
    method: Method,
    names: str = "abc",
    *,
    seed: int = 0,
    verdict: Callable[[Request, float], str] | None = None,
    size: int | None = None,
) -> Played:
    """The groups that a plan makes of some problems in one step."""
    moment = Moment(seed=seed, step=row.step, services=row.services())
    run = FakeRun(moment, verdict or row.verdict)
    found = collect_groups(
        run,
        map(problem, names),
        wanted=len(names),
        group_size=size or row.size,
        rounds=1,
        has_signal=lambda group: True,
        plan=at_moment(method.plan, moment),
    )
    groups: dict[int, list[Trajectory]] = {}
    for trajectory in found.sampled:
        groups.setdefault(trajectory.group, []).append(trajectory)
    return Played([groups.get(n, []) for n in range(len(names))], run)


def on_grpo(modifier) -> Callable[[], Method]:
    """GRPO with a modifier."""
    return lambda: methods.chain(methods.grpo(), modifier)


def needs_of(method: Method) -> tuple[Need, ...]:
    return getattr(method.plan, "needs", ())


def after(modifier, base=None):
    return methods.chain(base or methods.grpo(eps=0.0), modifier)


def credit_of(method, group):
    """Advantages `[M]` of the first turns of a group."""
    needs = [fact for fact in method.facts if fact.gather is not None]
    batch = packing.episode_batch(group, max_turns=4, needs=needs)
    assign = jax.jit(lambda batch: methods.assign(method, method.credit.init(), batch)[1])
    return np.asarray(assign(batch).advantages)[:, 0]


def calling(letters):
    """Verdicts by sample."""
    return lambda request, draw: letters[request.sample]


def well_formed(group):
    """The group with no turn against the rules."""
    return [
        dataclasses.replace(
            t, turns=tuple(dataclasses.replace(turn, violation=None) for turn in t.turns)
        )
        for t in group
    ]


def group_of(modifier, verdict, *, size=4, services=usual_services, base=None, step=60):
    method = after(modifier, base)
    row = Row(lambda: method, services=services, step=step)
    played = play(row, method, "a", verdict=verdict, size=size)
    return method, played.groups[0], played.run
