"""Generated problems: our own families, and those of reasoning-gym.

`families` describes `arithmetic`, `word`, `remainder`, `gcd`, `branch` and `chain`, which need the
tool, and `toolless` describes `sum`, which does not. A name such as `reasoning-gym/chain_sum` is a
family of that package; see `reasoning`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random

from gtpo_jax.tasks import reasoning
from gtpo_jax.tasks.families import FAMILIES, Case
from gtpo_jax.tasks.source import Noise, Script, with_noise
from gtpo_jax.tasks.toolless import TOOLLESS
from gtpo_jax.types import Problem

HELD_OUT_SHARE = 0.1
OWN = {**FAMILIES, **TOOLLESS}


def is_held_out(question: str) -> bool:
    """True for the tenth of all questions, chosen by hash, that is kept for evaluation."""
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedTask:
    """Problems of the families in equal shares.

    Streams with different names share no random numbers. Only our own families have
    demonstrators.
    """

    seed: int
    families: tuple[str, ...] = tuple(FAMILIES)
    level: int = 1  # difficulty, from 1
    noise: Noise = dataclasses.field(default_factory=Noise)

    def __post_init__(self):
        external = [name for name in self.families if reasoning.is_family(name)]
        unknown = set(self.families) - set(OWN) - set(external)
        if unknown or not self.families:
            raise ValueError(
                f"families must be among {sorted(OWN)}, got {sorted(unknown) or 'none'};"
                f" families of reasoning-gym are named like {reasoning.PREFIX}chain_sum"
            )
        if self.level < 1:
            raise ValueError(f"the level of generated problems starts from 1, got {self.level}")
        for name in external:
            reasoning.check_family(name, self.level)

    def train_problem(self, index: int) -> Problem:
        return self._problem("train", index, held_out=False)

    def held_out(self, count: int) -> list[Problem]:
        return [self._problem("held-out", index, held_out=True) for index in range(count)]

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        own = tuple(name for name in self.families if name in OWN)
        if not own:
            raise ValueError(
                f"the families {', '.join(self.families)} have no demonstrations; add one that has,"
                f" of {', '.join(OWN)}, or start from a model that can already call the tool"
            )
        family = own[index % len(own)]
        case = self._case(family, "demonstration", index, held_out=False)
        rng = self._rng("demonstrator", index)
        script = with_noise(case.demonstrate(rng), str(case.answer), rng, self.noise)
        return _problem_of(family, case), script

    def _problem(self, stream: str, index: int, *, held_out: bool) -> Problem:
        family = self.families[index % len(self.families)]
        if family in OWN:
            return _problem_of(family, self._case(family, stream, index, held_out=held_out))
        return reasoning.draw(
            family,
            self.level,
            stream=f"{self.seed}/{stream}",
            index=index // len(self.families),
            wanted=lambda question: is_held_out(question) == held_out,
        )

    def _case(self, family: str, stream: str, index: int, *, held_out: bool) -> Case:
        rng = self._rng(stream, index)
        while True:
            case = OWN[family](rng, self.level)
            if is_held_out(case.question) == held_out:
                return case

    def _rng(self, stream: str, index: int) -> random.Random:
        return random.Random(f"{self.seed}/{stream}/{index}")


def _problem_of(family: str, case: Case) -> Problem:
    return Problem(id=case.question, question=case.question, answer=str(case.answer), family=family)
