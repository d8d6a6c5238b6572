"""Families of generated problems that are answered at once, without a tool.

| family | question at level 1 | at level n |
|---|---|---|
| sum | a+b | numbers of n + 1 digits, whose last digits give a carry |

Demonstrators usually forget all carries: imitation alone learns that too, and reinforcement
learning must change the most likely digits.
"""

from __future__ import annotations

import random

from gtpo_jax.tasks.families import Case
from gtpo_jax.tasks.source import Answer, Script

FORGETS = 0.6
"""Probability that a demonstrator adds without carries."""


def addition(rng: random.Random, level: int = 1) -> Case:
    """A sum with a carry from the last digits."""
    while True:
        a, b = (rng.randint(10**level, 10 ** (level + 1) - 1) for _ in range(2))
        if a % 10 + b % 10 >= 10:
            break

    def script(rng: random.Random) -> Script:
        wrong = rng.random() < FORGETS
        yield Answer(thought="", text=without_carries(a, b) if wrong else str(a + b))

    return Case(f"{a}+{b}", a + b, script)


def without_carries(a: int, b: int) -> str:
    """The sum of two numbers of equal length in which every digit drops its carry."""
    pairs = zip(str(a), str(b), strict=True)
    return str(int("".join(str((int(x) + int(y)) % 10) for x, y in pairs)))


TOOLLESS = {"sum": addition}
