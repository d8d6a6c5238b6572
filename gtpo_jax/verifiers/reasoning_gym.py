"""Answers to problems of reasoning-gym. Extra: `reasoning`.

The id of a problem tells how to make it again: `reasoning-gym/chain_sum/LEVEL/SEED/INDEX`. `verify`
makes it again and asks the family to judge the answer, since many questions have several right
answers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from typing import Any

from gtpo_jax.types import Problem, Verdict

PREFIX = "reasoning-gym/"
VERIFIER = "reasoning-gym"
"""The kind of verifier that its problems name."""

BLOCK = 500
"""Entries of one data set. The package makes some of its data sets whole, so that they are small
and many."""

_UNREPEATABLE = frozenset(
    (
        *("codeio", "isomorphic_strings", "list_functions", "polynomial_multiplication"),
        *("ransom_note", "word_ladder"),
    )
)
"""Their entries depend on the order of a set or on a clock, which every process has its own of."""

_EXECUTING = frozenset(("intermediate_integration", "simple_integration"))
"""They evaluate an answer as Python, in this process, and need names in it."""

_EVALUATED = {
    "binary_matrix": r"[\d\s]*",
    "countdown": r"(?!.*\*\*)[-+*/()\d\s]*",
    "n_queens": r"[Q_\s]*",
    "puzzle24": r"(?!.*\*\*)[-+*/()\d\s]*",
    "spiral_matrix": r"[-\d\s]*",
    "string_insertion": r"[A-Z]*",
}
"""They evaluate an answer as Python, too: what a right one is made of. They see no other."""
_LONGEST = 1000
"""Characters of an answer that is evaluated."""


def verify(problem: Problem, answer: str | None) -> Verdict:
    """The family's verdict on an answer, which is right if it gets the full score.

    It is unverifiable if the installed package does not make this problem. An answer on which the
    family's code fails is wrong.
    """
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    answer = answer.strip()
    name, *_ = parse_id(problem.id)
    made_of = _EVALUATED.get(name.removeprefix(PREFIX))
    if made_of and (len(answer) > _LONGEST or not re.fullmatch(made_of, answer, re.DOTALL)):
        return Verdict.WRONG
    made = remade(problem)
    if made is None:
        return Verdict.UNVERIFIABLE
    dataset, entry = made
    try:
        score = dataset.score_answer(answer=answer, entry=entry)
    except MemoryError:
        raise
    except Exception:  # whatever the code of a hundred families may raise
        return Verdict.WRONG
    return Verdict.RIGHT if score == 1 else Verdict.WRONG


def remade(problem: Problem) -> tuple[Any, Any] | None:
    """The data set and the entry of a problem; None if the data set does not make it."""
    name, level, seed, index = parse_id(problem.id)
    try:
        dataset = make_dataset(name, level, seed)
        entry = dataset[index]
    except Exception:  # whatever the code of a hundred families may raise
        return None
    return (dataset, entry) if entry["question"] == problem.question else None


def parse_id(identity: str) -> tuple[str, int, int, int]:
    match = re.fullmatch(rf"({PREFIX}\w+)/(\d+)/(\d+)/(\d+)", identity)
    if match is None:
        raise ValueError(
            f"{identity!r} is no id of a problem of reasoning-gym; expected"
            f" {PREFIX}NAME/LEVEL/SEED/INDEX"
        )
    name, *numbers = match.groups()
    level, seed, index = map(int, numbers)
    return name, level, seed, index


@functools.lru_cache(maxsize=64)
def make_dataset(name: str, level: int, seed: int) -> Any:
    """The data set of a family at a level, with a seed."""
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise ValueError(
            f"{name} needs the package reasoning-gym: pip install -e '.[reasoning]'"
        ) from error
    family = name.removeprefix(PREFIX)
    if family not in factory.DATASETS:
        version = importlib.metadata.version("reasoning_gym")
        known = ", ".join(sorted(factory.DATASETS))
        raise ValueError(f"reasoning-gym {version} has no family {family!r}; it has {known}")
    if family in _UNREPEATABLE:
        raise ValueError(f"{name} makes other problems in every process; choose another family")
    if family in _EXECUTING:
        raise ValueError(
            f"{name} runs answers as Python where nothing isolates them; choose another family"
        )
    options = {"seed": seed, "size": BLOCK}
    try:
        if not factory.has_curriculum(family):
            if level > 1:
                raise ValueError("it has no curriculum, so its level is 1")
            return factory.createmake_dataset(family, **options)
        curriculum = factory.create_curriculum(family)
        highest = max(len(attribute.levels) for attribute in curriculum.attributes.values())
        if level > highest:
            raise ValueError(f"its highest level is {highest}")
        for attribute in curriculum.attributes.values():
            step = min(level, len(attribute.levels)) - 1
            curriculum.set_attr_level(attribute.name, step)
        make, _ = factory.DATASETS[family]
        return make(config=curriculum.generate_configuration(options))
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{name} cannot be made at level {level}: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """The message of an error, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
