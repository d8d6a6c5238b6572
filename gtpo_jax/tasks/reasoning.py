"""Problems of reasoning-gym: `reasoning-gym/chain_sum` is its family `chain_sum`.
Extra: `reasoning`.

A level is a step of the family's own curriculum: each of its attributes stands at that step, or at
its last one. A family without a curriculum has level 1 alone, its default configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gtpo_jax.types import Problem
from gtpo_jax.verifiers.reasoning_gym import BLOCK, PREFIX, VERIFIER, make_dataset, one_line

TRIES = 2000
"""Data sets that are searched for a question that is wanted."""


def is_family(name: str) -> bool:
    """Whether a name is meant for this package."""
    return name.startswith(PREFIX)


def check_family(name: str, level: int) -> None:
    """Raises unless there is such a family, it has the level, and it can be trained on."""
    make_dataset(name, level, 0)


def draw(
    name: str, level: int, *, stream: str, index: int, wanted: Callable[[str], bool]
) -> Problem:
    """Problem number `index` of a stream, of those whose question is `wanted`."""
    block, place = divmod(index, BLOCK)
    reason = "it has too few questions to keep a tenth of them for evaluation"
    for attempt in range(TRIES):
        drawn = hashlib.sha256(f"{stream}/{name}/{level}/{block}/{attempt}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1
        dataset = make_dataset(name, level, seed)
        try:
            entry = dataset[place]
        except Exception as error:  # some families search for an entry and do not always find one
            reason = one_line(error)
            continue
        if wanted(entry["question"]):
            return Problem(
                id=f"{name}/{level}/{seed}/{place}",
                question=entry["question"],
                answer=str(entry["answer"] or ""),  # some families judge without knowing one
                family=name,
                verifier=VERIFIER,
            )
    raise ValueError(
        f"{name} gave no problem at level {level} in {TRIES} attempts: {reason}; choose another"
        " level or family"
    )
