"""Rows of the suite of prompts: modifiers that choose problems, or divide rollouts among them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from gtpo_jax import methods
from gtpo_jax.methods import Method

PROBLEMS, WANTED, SIZE = 6, 4, 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A modifier of prompts under test, after GRPO."""

    options: dict
    first: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    """Successes, failures and diversity or length of each problem, as `SEEN` has them → the
    probability of each to be the first of a proposal, in float64; None: it chooses no problems."""
    neutral: dict | None = None
    """Options at which all problems are equally likely."""
    after: tuple[str, ...] = ("grpo",)

    def make(self, name: str, options: dict | None = None) -> Method:
        made = [methods.MODIFIERS[other]() for other in self.after[1:]]
        chosen = methods.MODIFIERS[name](**(self.options if options is None else options))
        return methods.chain(methods.grpo(), *made, chosen)


def uniform(right, wrong, further):
    return np.full(len(right), 1 / len(right))


def thompson(right, wrong, further, prior=1.0, points=40_001):
    """The chance of the highest p (1 − p)², by sums over a grid of rates."""
    grid = (np.arange(points) + 0.5) / points
    score = grid * (1 - grid) ** 2
    order = np.argsort(score)
    masses = []
    for a, b in zip(right + prior, wrong + prior, strict=True):
        log = (a - 1) * np.log(grid) + (b - 1) * np.log1p(-grid)
        log += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        masses.append(np.exp(log) / points)
    below = []
    for mass in masses:
        ranked = np.cumsum(mass[order])
        under = np.empty(points)
        under[order] = ranked - 0.5 * mass[order]
        below.append(under)
    chances = [
        np.sum(masses[i] * np.prod([below[j] for j in range(len(right)) if j != i], axis=0))
        for i in range(len(right))
    ]
    return np.array(chances) / np.sum(chances)


def by_variance(right, wrong, further):
    p = right / (right + wrong)
    score = 0.5 * p * (1 - p) + 0.5 * further
    return score / score.sum()


def by_deviation(right, wrong, further):
    p = (right + 0.5) / (right + wrong + 1.0)
    weight = np.sqrt(p * (1 - p)) + 0.05
    return weight / weight.sum()


def in_window(right, wrong, further):
    p, n = right / (right + wrong), right + wrong
    inside = (n < 4) | ((p >= 0.2) & (p <= 0.6))
    return inside / inside.sum()


def easiest(right, wrong, further):
    """The half with the highest rates."""
    inside = np.zeros(len(right))
    inside[np.argsort(-(right / (right + wrong)), kind="stable")[: len(right) // 2 + 1]] = 1
    return inside / inside.sum()


ROWS = {
    "uniform_prompts": Row({}, uniform, neutral={}),
    "knapsack": Row({"highest": 9}, after=("grpo", "uniform_prompts")),
    "vade": Row({"met": 1.0, "others": 1.0}, thompson),
    "mmr1": Row({"every": 1}, by_variance, neutral={"mixture": 0.0}),
    "spo_prompts": Row({}, by_deviation, neutral={"floor": 1e6}),
    "success_window": Row({"trials": 4}, in_window, neutral={"lowest": 0.0, "highest": 1.0}),
    "difficulty_buckets": Row({"buckets": 3, "every": 4}, easiest, neutral={"buckets": 1}),
    "overlong_filter": Row({}),
}
