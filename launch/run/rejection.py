"""Rejection sampling: the model's own successful trajectories, as a file of demonstrations.

Problems are sampled in batches. After each batch the file is rewritten atomically, so it is
complete at any moment.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Sequence

from gtpo_jax import rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.results import records
from gtpo_jax.rollout import sharing
from gtpo_jax.tasks.imitation import to_conversation
from gtpo_jax.types import Params, Problem, Trajectory
from launch.run import cluster, display, signals
from launch.run.session import Session

STEP = 2**32 - 2
"""Step in the random keys of these trajectories; neither training nor evaluation uses it."""

ROUNDS = 4
"""How many times the problems of one batch fill the rows of a rollout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """The problems to sample, and the trajectories to save of them."""

    path: pathlib.Path
    first: int = 0  # number of the first training problem
    problems: int = 256  # number of training problems from there on
    samples: int = 4  # trajectories per problem
    most_per_problem: int = 1
    violations: bool = False  # also keep trajectories with badly formed turns
    temperature: float = 1.0

    def __post_init__(self):
        for name, least in (("first", 0), ("problems", 1), ("samples", 1), ("most_per_problem", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.most_per_problem > self.samples:
            raise ValueError(
                f"most_per_problem is {self.most_per_problem}, and a problem has {self.samples}"
                " samples; raise samples or lower it"
            )
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"{self.samples} samples at temperature 0 are equal; set samples to 1, or raise the"
                " temperature"
            )
        if self.path.exists():
            raise ValueError(
                f"{self.path} exists; choose another name: --sft.files takes several files"
            )


@dataclasses.dataclass(kw_only=True)
class Kept:
    """Counts of what was sampled so far, and the demonstrations saved from it."""

    problems: int = 0
    trajectories: int = 0
    right: int = 0
    solved: int = 0  # problems with a right answer
    turns: int = 0  # turns of the demonstrations
    turns_with_ids: int = 0  # turns whose texts the tokenizer encodes differently
    records: list[dict] = dataclasses.field(default_factory=list)

    def add(self, session: Session, wanted: Wanted, trajectories: Sequence[Trajectory]) -> None:
        """Counts the trajectories of further problems, and keeps the best of them."""
        for _, group in itertools.groupby(trajectories, key=lambda t: t.group):
            samples = list(group)
            right = sum(t.success for t in samples)
            self.problems += 1
            self.trajectories += len(samples)
            self.right += right
            self.solved += right > 0
            for trajectory in worth_imitating(samples, wanted):
                conversation = to_conversation(trajectory, session.dialogue)
                self.records.append(conversation.record())
                self.turns += len(conversation.turns)
                self.turns_with_ids += sum(t.token_ids is not None for t in conversation.turns)

    def figures(self) -> dict[str, int]:
        """The counts as a JSON object."""
        counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**counts, "records": len(self.records)}

    def __str__(self) -> str:
        said = (
            f"{self.solved:,} of {self.problems:,} problems solved, {self.right:,} of"
            f" {self.trajectories:,} trajectories right, {len(self.records):,} kept"
        )
        if self.turns_with_ids:
            said += (
                f"; {self.turns_with_ids:,} of {self.turns:,} turns keep their token ids, which"
                " their texts do not give back"
            )
        return said


def keep_successes(session: Session, params: Params, wanted: Wanted) -> Kept:
    """Samples training problems of a session and writes the trajectories that are worth imitating.

    Ctrl-C and SIGTERM let the current batch finish and save it; a second Ctrl-C leaves the file as
    it is. Without any success no file is written.
    """
    numbered = distinct_problems(session, wanted)
    session.check_prompts(problem for _, problem in numbered)
    engine = session.engine(
        functools.partial(sampling.categorical, temperature=wanted.temperature)
        if wanted.temperature
        else sampling.greedy
    )
    local, kept = session.localize(params), Kept()
    size = max(1, ROUNDS * session.config.rollout.slots // wanted.samples)
    with (
        signals.AfterStep() as after,
        display.Display("successes", len(numbered)) as bar,
    ):
        for begin in range(0, len(numbered), size):
            requests = [
                rollout.Request(problem=problem, group=number, sample=sample)
                for number, problem in numbered[begin : begin + size]
                for sample in range(wanted.samples)
            ]

            def run(requests: Sequence[rollout.Request]):
                with display.rollout("rollout", bar) as on_progress:
                    return engine.run(
                        local,
                        requests,
                        seed=session.config.seed,
                        step=STEP,
                        on_progress=on_progress,
                    )

            kept.add(session, wanted, sharing.share(run, requests)[0])
            if kept.records and cluster.is_first():
                records.write_records(wanted.path, kept.records)
            bar.update(kept.problems, {"solved": kept.solved, "kept": len(kept.records)})
            told = after.told()
            if told and kept.problems < len(numbered):
                following = numbered[kept.problems][0]
                left = wanted.first + wanted.problems - following
                raise after.stop(
                    told,
                    f"{kept}; go on with another file and --first-problem {following}"
                    f" --problems {left}",
                )
    return kept


def distinct_problems(session: Session, wanted: Wanted) -> list[tuple[int, Problem]]:
    """The training problems and their numbers, without duplicates, which would add nothing."""
    distinct: dict[str, tuple[int, Problem]] = {}
    for number in range(wanted.first, wanted.first + wanted.problems):
        problem = session.source.train_problem(number)
        distinct.setdefault(problem.id, (number, problem))
    if len(distinct) < wanted.problems:
        display.CONSOLE.print(
            f"{wanted.problems - len(distinct):,} of {wanted.problems:,} problems repeat others and"
            " are left out",
            highlight=False,
        )
    return list(distinct.values())


def worth_imitating(samples: Sequence[Trajectory], wanted: Wanted) -> list[Trajectory]:
    """Right and well-formed trajectories with different texts, in the order in which they were
    sampled.

    They are therefore a sample of the policy's successes, not a selection by length.
    """
    distinct: dict[tuple[str, ...], Trajectory] = {}
    for trajectory in samples:
        broken = any(turn.violation is not None for turn in trajectory.turns)
        if trajectory.success and (wanted.violations or not broken):
            distinct.setdefault(tuple(turn.text for turn in trajectory.turns), trajectory)
    return list(distinct.values())[: wanted.most_per_problem]
