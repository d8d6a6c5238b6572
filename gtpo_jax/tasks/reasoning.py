"""Problems of reasoning-gym: `reasoning-gym/chain_sum` is its family `chain_sum`.

A level is a step of the family's curriculum: each attribute takes its value at that step, or its
last value. A family without a curriculum has only level 1, its default configuration. Needs the
extra `reasoning`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gtpo_jax.types import Problem
from gtpo_jax.verifiers.reasoning_gym import BLOCK, PREFIX, VERIFIER, make_dataset, one_line

TRIES = 2000
"""Number of data sets that are searched for a wanted question."""


def is_family(name: str) -> bool:
    """True if a name is that of a reasoning-gym family."""
    return name.startswith(PREFIX)


def check_family(name: str, level: int) -> None:
    """Raises ValueError unless the family exists, has the level, and can be trained on."""
    make_dataset(name, level, 0)


def draw(
    name: str, level: int, *, stream: str, index: int, wanted: Callable[[str], bool]
) -> Problem:
    """Problem number `index` of a stream, with a question that is `wanted`."""
    block, place = divmod(index, BLOCK)
    reason = "it has too few questions to keep a tenth of them for evaluation"
    for attempt in range(TRIES):
        drawn = hashlib.sha256(f"{stream}/{name}/{level}/{block}/{attempt}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1
        dataset = make_dataset(name, level, seed)
        try:
            entry = dataset[place]
        except Exception as error:  # some families search for an entry and may fail
            reason = one_line(error)
            continue
        if wanted(entry["question"]):
            return Problem(
                id=f"{name}/{level}/{seed}/{place}",
                question=entry["question"],
                answer=str(entry["answer"] or ""),  # some families judge without a known answer
                family=name,
                verifier=VERIFIER,
            )
    raise ValueError(
        f"{name} gave no problem at level {level} in {TRIES} attempts: {reason}; choose another"
        " level or family"
    )
