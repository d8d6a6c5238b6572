"""The audit's second code: plain Python and NumPy, no function of the library.

It walks the episodes of a small `chain` by recursion, and sums updates over all ordered groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

ANSWER, BROKEN = 2, 3
"""Actions of the chain; 0 is the right one."""

Path = tuple[tuple[int, int], ...]
"""An episode: observation and action of each turn."""


class Chain:
    """The world `chain` under a table of logits `[needed + 1, 4]`."""

    def __init__(self, needed: int, turns: int, logits: np.ndarray):
        self.needed, self.turns = needed, turns
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.policy = exps / exps.sum(axis=1, keepdims=True)

    def paths(self, path: Path = ()) -> Iterator[Path]:
        """All episodes that begin with `path`."""
        done = min(sum(action == 0 for _, action in path), self.needed)
        if len(path) == self.turns or (path and path[-1][1] == ANSWER):
            yield path
            return
        for action in range(self.policy.shape[1]):
            yield from self.paths((*path, (done, action)))

    def solved(self, path: Path) -> bool:
        return path[-1] == (self.needed, ANSWER)

    def chance(self, path: Path) -> float:
        return math.prod(self.policy[turn] for turn in path)

    def score(self, turn: tuple[int, int]) -> np.ndarray:
        """`∇ log π` of one turn."""
        observation, action = turn
        slope = np.zeros_like(self.policy)
        slope[observation] = -self.policy[observation]
        slope[observation, action] += 1.0
        return slope

    def success(self) -> float:
        return sum(self.chance(path) * self.solved(path) for path in self.paths())

    def gradient(self) -> np.ndarray:
        """The gradient of expected success."""
        total = np.zeros_like(self.policy)
        for path in self.paths():
            for turn in path:
                total += self.chance(path) * self.solved(path) * self.score(turn)
        return total

    def rewards(self, path: Path, *, penalty: float, forfeit: bool) -> list[float]:
        """The outcome on the last turn, minus the penalty on broken ones; or no outcome at all for
        an episode with a broken turn.
        """
        broken = [action == BROKEN for _, action in path]
        earned = [-penalty * b for b in broken]
        earned[-1] += float(self.solved(path) and not (forfeit and any(broken)))
        return earned

    def expected_update(
        self,
        advantages: Callable[[list[list[float]]], Sequence[Sequence[float]]],
        size: int,
        *,
        penalty: float = 0.0,
        forfeit: bool = False,
    ) -> np.ndarray:
        """`E[Σ_t A_t ∇ log π_t / Σ_t 1]` over all ordered groups of `size` episodes."""
        paths = list(self.paths())
        total = np.zeros_like(self.policy)
        for group in itertools.product(paths, repeat=size):
            earned = [self.rewards(path, penalty=penalty, forfeit=forfeit) for path in group]
            slopes = sum(
                weight * self.score(turn)
                for row, path in zip(advantages(earned), group, strict=True)
                for weight, turn in zip(row, path, strict=True)
            )
            total += math.prod(map(self.chance, group)) * slopes / sum(map(len, group))
        return total


def leave_one_out(rewards: list[list[float]]) -> list[list[float]]:
    """RLOO's advantages of one group."""
    totals = [sum(row) for row in rewards]
    others = [(sum(totals) - total) / (len(totals) - 1) for total in totals]
    return [
        [total - mean] * len(row) for row, total, mean in zip(rewards, totals, others, strict=True)
    ]


def discounted_scores(
    rewards: list[list[float]], *, discount: float = 0.9, eps: float = 1e-6
) -> list[list[float]]:
    """GTPO's advantages of one group: all turns together."""
    returns = [
        [sum(discount ** (j - k) * row[j] for j in range(k, len(row))) for k in range(len(row))]
        for row in rewards
    ]
    pool = np.concatenate([np.asarray(row) for row in returns])
    if np.ptp(pool) == 0:
        return [[0.0] * len(row) for row in returns]
    return [[(x - pool.mean()) / (pool.std() + eps) for x in row] for row in returns]
