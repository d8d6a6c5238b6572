"""An endless grain pipeline of problems with random access, the same in every process.

A problem is read by its position in the stream. A run computes positions from its step, so the step
in a checkpoint restores the position: later problems do not depend on earlier reads.
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
    """A problem, and the arithmetic expression that solves it, if known."""

    problem: Problem
    expression: str | None = None


def shuffled(items: Sequence[T], *, seed: int, stream: str) -> grain.MapDataset[T]:
    """Repeats all items without end, shuffled differently in each epoch.

    Streams with different names share no random numbers. Random access takes constant time.
    """
    if not items:
        raise ValueError(f"there is nothing to shuffle in the stream {stream!r}")
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    # grain adds 1 to the seed in each epoch, so nearby user seeds must not give nearby seeds.
    drawn = int.from_bytes(digest[:4], "big")
    return grain.MapDataset.source(items).shuffle(seed=drawn).repeat()


def with_other_numbers(
    pipeline: grain.MapDataset[Entry], *, share: float, seed: int, stream: str
) -> grain.MapDataset[Entry]:
    """Changes the numbers in a share of the entries with an expression, differently each epoch.

    An entry that `vary_numbers` cannot vary stays unchanged.
    """

    def vary(index: int, entry: Entry) -> Entry:
        rng = random.Random(f"{seed}/{stream}/numbers/{index}")
        if entry.expression is None or rng.random() >= share:
            return entry
        varied = vary_numbers(entry.problem, entry.expression, rng)
        return entry if varied is None else Entry(*varied)

    return pipeline.map_with_index(vary)


def with_other_words(
    pipeline: grain.MapDataset[Entry], wording: Wording, *, share: float, seed: int, stream: str
) -> grain.MapDataset[Entry]:
    """Retells a share of the entries with an expression in other words, differently each epoch."""

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
    """One epoch of a filtered pipeline, as a pipeline without gaps.

    In grain a filter leaves gaps: positions of dropped elements hold None.
    """
    return grain.MapDataset.source([item for item in pipeline if item is not None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrainTask:
    """A `ProblemSource` of any grain pipeline: composed, mixed, filtered, mapped.

    `train` is read by position and must repeat without end; `shuffled` makes such a pipeline.
    """

    train: grain.MapDataset[Problem]
    evaluation: Sequence[Problem]
    solved: grain.MapDataset[Entry] | None = None  # entries with an expression, for demonstrations
    seed: int = 0  # for slips and noise of demonstrations
    noise: Noise = dataclasses.field(default_factory=Noise)
    notes: Sequence[str] = ()  # records that were left out when reading
    train_count: int | None = None  # different problems at the beginning of `train`; None: unknown

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
        script = expression_script(entry.expression or "", rng, slip=self.noise.slip)
        return entry.problem, with_noise(script, entry.problem.answer, rng, self.noise)


def _element(pipeline: grain.MapDataset[T], index: int, kind: type[T]) -> T:
    element = pipeline[index]
    if element is None:
        raise ValueError(
            f"the pipeline has no {kind.__name__} {index}: a filter dropped it; pass a filtered"
            " pipeline through gtpo_jax.tasks.stream.settled before shuffling or mixing it"
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
    """A task of shuffled training entries; those with an expression give demonstrations.

    `other_numbers`: share of problems and demonstrations whose numbers are changed.
    `other_words`: share of demonstrations that are retold in other words.
    """

    def renumbered(order: grain.MapDataset[Entry], stream: str) -> grain.MapDataset[Entry]:
        return with_other_numbers(order, share=other_numbers, seed=seed, stream=stream)

    demonstrated = None
    if solved := [entry for entry in train if entry.expression]:
        stream = "demonstration"
        order = shuffled(solved, seed=seed, stream=stream)
        wording = wording_of(entry.problem.question for entry in train)
        retold = with_other_words(order, wording, share=other_words, seed=seed, stream=stream)
        demonstrated = renumbered(retold, stream)
    problems = renumbered(shuffled(train, seed=seed, stream="train"), "train")
    return GrainTask(
        train=problems.map(lambda entry: entry.problem),
        evaluation=[entry.problem for entry in evaluation],
        solved=demonstrated,
        seed=seed,
        noise=noise or Noise(),
        notes=notes,
        train_count=len(train),
    )
