"""More rollouts at a temperature that pulls the entropy towards a target (AEPO, 2510.08141)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory

FACT = "resampled"
"""Name of the fact of trajectories: 1 for those at another temperature, 0 for the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Temperatures:
    """The factor on the sampler's temperature for a policy of mean entropy H, in nats.

    `high` for `H ≤ target` and `low` above it; with `smooth`, `clip(1 + target − H, low, high)`.
    """

    target: float = 0.5
    low: float = 0.8
    high: float = 1.2
    smooth: bool = False

    def __post_init__(self):
        checks.check_positive("target", self.target, hint="it is an entropy in nats, 0.5 is usual")
        checks.check_positive("low", self.low, hint="it is a factor on the temperature, below 1")
        if not self.low <= 1.0 <= self.high:
            raise ValueError(
                f"the temperatures must be low <= 1 <= high, got {self.low} and {self.high}; they"
                " are factors on the temperature of the sampler"
            )

    def __call__(self, entropy: float) -> float:
        if self.smooth:
            return min(max(1.0 + self.target - entropy, self.low), self.high)
        return self.high if entropy <= self.target else self.low


def mean_entropy(group: Iterable[Trajectory]) -> float:
    """The mean entropy of the tokens that the policy wrote, in nats; 0 if none was measured."""
    turns = [turn for trajectory in group for turn in trajectory.turns if len(turn.entropies)]
    values = [float(x) for turn in turns for x in turn.entropies[turn.given :]]
    return math.fsum(values) / len(values) if values else 0.0


def retempered(*, share: float = 0.25, temperatures: Temperatures) -> Plan:
    """`size` samples, and then `⌈share · size⌉` at the temperature that their entropy asks for."""
    checks.check_range("share", share, 0.0, 1.0, hint="it is a share of the group, 0.25 is usual")
    more = functools.partial(_more, share)

    def episodes(problem: Problem, group: int, size: int) -> Episodes:
        members = yield [Request(problem=problem, group=group, sample=n) for n in range(size)]
        if more(size) == size:
            return members
        factor = temperatures(mean_entropy(members))
        others = yield [
            Request(problem=problem, group=group, sample=n, temperature=factor)
            for n in range(size, more(size))
        ]
        marked = [dataclasses.replace(t, facts={**t.facts, FACT: 1}) for t in others]
        return [*members, *marked]

    return Plan(episodes=episodes, returned=more, sampled=more)


def _more(share: float, size: int) -> int:
    return size + math.ceil(share * size - 1e-9)
