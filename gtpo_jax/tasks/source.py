"""What a source of problems offers, and the scripts from which demonstrations are made."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Generator
from typing import Protocol

from gtpo_jax.types import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A turn that runs code. `closed=False` forgets the closing marker, so nothing is run."""

    thought: str = ""
    code: str
    closed: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A turn that answers."""

    thought: str = "The answer is "
    text: str


Script = Generator[Call | Answer, str, None]
"""A demonstrator: yields turns, is sent the observation after each call, and ends with an answer.
"""


class ProblemSource(Protocol):
    """An endless, repeatable stream of training problems, and problems held out from it."""

    def train_problem(self, index: int) -> Problem:
        """Training problem number `index`; the same for the same index, in every process."""
        ...

    def held_out(self, count: int) -> list[Problem]:
        """`count` problems that no training problem or demonstration repeats."""
        ...

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        """Demonstration number `index`: imperfect on purpose."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """How often demonstrators stray, whatever the problem."""

    skip_tool: float = 0.15  # answers with a guess, without any call
    unclosed_call: float = 0.06  # per call: forgets the closing marker, then guesses


def with_noise(script: Script, truth: str, rng: random.Random, noise: Noise) -> Script:
    """The script, astray as often as `noise` says."""
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
    """A number near the truth, seldom the truth itself."""
    try:
        value = int(float(truth))
    except ValueError:
        return truth
    return str(value + rng.randint(-10, 10))
