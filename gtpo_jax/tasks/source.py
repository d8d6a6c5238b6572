"""The interface of problem sources, and scripts for demonstrations."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Generator
from typing import Protocol

from gtpo_jax.types import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A turn that calls the tool. `closed=False` omits the closing marker, so nothing runs."""

    thought: str = ""
    code: str
    closed: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A turn that answers."""

    thought: str = "The answer is "
    text: str


Script = Generator[Call | Answer, str, None]
"""A demonstrator: yields turns, receives the output after each call, and ends with an answer."""


class ProblemSource(Protocol):
    """An endless, reproducible stream of training problems, and held-out problems."""

    def train_problem(self, index: int) -> Problem:
        """Training problem number `index`, the same in every process."""
        ...

    def held_out(self, count: int) -> list[Problem]:
        """`count` problems that never occur in training or demonstrations."""
        ...

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        """Demonstration number `index`, imperfect on purpose."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Probabilities of what demonstrators do wrong on purpose."""

    skip_tool: float = 0.15  # answers with a guess, without any call
    unclosed_call: float = 0.06  # per call: forgets the closing marker, then guesses
    slip: float = 0.3  # computes another expression than the problem's


def with_noise(script: Script, truth: str, rng: random.Random, noise: Noise) -> Script:
    """The script with guesses and unclosed calls."""
    if rng.random() < noise.skip_tool:
        yield Answer(text=guess(truth, rng))
        return
    turn = next(script)
    while isinstance(turn, Call):
        if rng.random() < noise.unclosed_call:
            yield dataclasses.replace(turn, closed=False)
            yield Answer(text=guess(truth, rng))
            return
        turn = script.send((yield turn))
    yield turn


def guess(truth: str, rng: random.Random) -> str:
    """A random number near the truth, rarely equal to it."""
    try:
        value = int(float(truth))
    except ValueError:
        return truth
    return str(value + rng.randint(-10, 10))
