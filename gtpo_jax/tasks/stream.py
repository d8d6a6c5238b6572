"""Problems in a grain pipeline: any of them by its number, without end, the same in every process.

The number of a problem is its position in the stream. A run asks for those of its step, so that the
step in a checkpoint is the saved position: what comes next does not depend on what was read before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

import grain

from gtpo_jax.tasks.expressions import expression_script
from gtpo_jax.tasks.retelling import Wording, retell, wording_of
from gtpo_jax.tasks.source import Noise, Script, with_noise
from gtpo_jax.tasks.variation import vary_numbers
from gtpo_jax.types import Problem

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A problem, and the arithmetic that solves it, when it is known."""

    problem: Problem
    expression: str | None = None


def shuffled(items: Sequence[T], *, seed: int, stream: str) -> grain.MapDataset[T]:
    """All items in an order drawn anew each epoch, without end.

    Streams of different names share no random number. An access takes the same time wherever it is.
    """
    if not items:
        raise ValueError(f"there is nothing to shuffle in the stream {stream!r}")
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    # One order has the seed of the one before plus 1, so near seeds must not be those of a user.
    drawn = int.from_bytes(digest[:4], "big")
    return grain.MapDataset.source(items).shuffle(seed=drawn).repeat()


def with_other_numbers(
    pipeline: grain.MapDataset[Entry], *, share: float, seed: int, stream: str
) -> grain.MapDataset[Entry]:
    """The entries, a share of those with an expression with other numbers, each epoch with others.

    An entry stays as it is where `vary_numbers` finds no way.
    """

    def vary(index: int, entry: Entry) -> Entry:
        rng = random.Random(f"{seed}/{stream}/numbers/{index}")
        if entry.expression is None or rng.random() >= share:
            return entry
        found = vary_numbers(entry.problem, entry.expression, rng)
        return entry if found is None else Entry(*found)

    return pipeline.map_with_index(vary)


def told_anew(
    pipeline: grain.MapDataset[Entry], wording: Wording, *, share: float, seed: int, stream: str
) -> grain.MapDataset[Entry]:
    """The entries, a share of those with an expression in other words, each epoch in others."""

    def tell(index: int, entry: Entry) -> Entry:
        rng = random.Random(f"{seed}/{stream}/words/{index}")
        if entry.expression is None or rng.random() >= share:
            return entry
        problem = dataclasses.replace(
            entry.problem,
            id=f"{entry.problem.id}/{rng.getrandbits(32):08x}",
            question=retell(entry.problem.question, wording, rng),
        )
        return dataclasses.replace(entry, problem=problem)

    return pipeline.map_with_index(tell)


def settled(pipeline: grain.MapDataset[T]) -> grain.MapDataset[T]:
    """What the filters of a pipeline leave of one epoch, as a pipeline without gaps.

    grain keeps the numbers of what a filter drops, and has nothing under them.
    """
    return grain.MapDataset.source([item for item in pipeline if item is not None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrainTask:
    """A `ProblemSource` of any pipeline: composed, mixed, filtered, mapped.

    `train` is read by number and goes round when its epoch ends; `shuffled` makes one of a list.
    """

    train: grain.MapDataset[Problem]
    evaluation: Sequence[Problem]
    solved: grain.MapDataset[Entry] | None = None  # entries with an expression, to demonstrate
    seed: int = 0  # of slips and noise of demonstrations
    noise: Noise = dataclasses.field(default_factory=Noise)
    notes: Sequence[str] = ()  # what was left out when it was read

    def train_problem(self, index: int) -> Problem:
        return _element(self.train, index, Problem)

    def held_out(self, count: int) -> list[Problem]:
        return list(self.evaluation[:count])

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        if self.solved is None:
            raise ValueError(
                "no problem of the training files has an `expression` to make a demonstration of;"
                " add some, or start from a checkpoint that can already call the tool"
            )
        entry = _element(self.solved, index, Entry)
        rng = random.Random(f"{self.seed}/demonstrator/{index}")
        script = expression_script(entry.expression or "", rng)
        return entry.problem, with_noise(script, entry.problem.answer, rng, self.noise)


def _element(pipeline: grain.MapDataset[T], index: int, kind: type[T]) -> T:
    element = pipeline[index]
    if element is None:
        raise ValueError(
            f"the pipeline has no {kind.__name__} {index}: a filter dropped it; put what is"
            " filtered through gtpo_jax.tasks.stream.settled before it is shuffled or mixed"
        )
    if not isinstance(element, kind):
        raise ValueError(
            f"element {index} of the pipeline is a {type(element).__name__}, expected a"
            f" {kind.__name__}; map the pipeline"
        )
    return element


def entries_task(
    train: Sequence[Entry],
    evaluation: Sequence[Entry],
    *,
    seed: int,
    noise: Noise | None = None,
    other_numbers: float = 0.0,
    other_words: float = 0.0,
    notes: Sequence[str] = (),
) -> GrainTask:
    """Training entries in an order drawn anew each epoch; those with an expression demonstrate.

    `other_numbers` is the share of either that has other numbers than the entry it is made of, and
    `other_words` the share of demonstrations that are told in other words.
    """

    def renumbered(order: grain.MapDataset[Entry], stream: str) -> grain.MapDataset[Entry]:
        return with_other_numbers(order, share=other_numbers, seed=seed, stream=stream)

    demonstrated = None
    if solved := [entry for entry in train if entry.expression]:
        stream = "demonstration"
        order = shuffled(solved, seed=seed, stream=stream)
        wording = wording_of(entry.problem.question for entry in train)
        told = told_anew(order, wording, share=other_words, seed=seed, stream=stream)
        demonstrated = renumbered(told, stream)
    asked = renumbered(shuffled(train, seed=seed, stream="train"), "train")
    return GrainTask(
        train=asked.map(lambda entry: entry.problem),
        evaluation=[entry.problem for entry in evaluation],
        solved=demonstrated,
        seed=seed,
        noise=noise or Noise(),
        notes=notes,
    )
