"""Trees of turns: branches after the returns of tools where entropy rises (ARPO, arXiv
2507.19849)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Problem, Request, Trajectory, Turn


def early_entropy(turn: Turn, *, window: int, vocabulary: int) -> float:
    """`Σ_t H_t / ln(vocabulary)` over the first `window` tokens that the policy wrote in a turn."""
    written = turn.entropies[turn.given :][:window]
    return float(np.sum(written, dtype=np.float64)) / float(np.log(vocabulary))


def branches_here(draw: float, rise: float, *, probability: float, weight: float) -> bool:
    """True if `clip(u − weight · ΔH, 0, 1) ≤ probability` for u uniform in [0, 1)."""
    return min(max(draw - weight * rise, 0.0), 1.0) <= probability


class Branching(NamedTuple):
    """The options of a tree."""

    copies: int
    probability: float
    weight: float
    window: int
    vocabulary: int

    def points(self, trajectories: Sequence[Trajectory], moment: Moment) -> list[tuple[Turn, ...]]:
        """Beginnings to go on from, the earliest turns first.

        A trajectory may branch before each of its own turns but its first one. Each branch of
        `copies` is decided for itself.
        """
        found = []
        for index, trajectory in enumerate(trajectories):
            entropies = [
                early_entropy(turn, window=self.window, vocabulary=self.vocabulary)
                for turn in trajectory.turns
            ]
            for k in range(trajectory.shared_turns + 1, len(trajectory.turns)):
                dice = moment.dice(trajectory.problem, trajectory.sample, f"branch before turn {k}")
                for _ in range(self.copies):
                    rise = entropies[k] - entropies[0]
                    chance = self.probability, self.weight
                    if branches_here(dice.random(), rise, probability=chance[0], weight=chance[1]):
                        found.append((k, index, trajectory.turns[:k]))
        return [turns for _, _, turns in sorted(found, key=lambda point: point[:2])]


def tree(
    *,
    trunks: int | None = None,
    beam: int = 2,
    probability: float = 0.5,
    weight: float = 0.2,
    window: int = 20,
    vocabulary: int = 151_936,
) -> Plan:
    """`trunks` samples, and branches of theirs up to `size` trajectories.

    After the return of a tool, a trajectory gets each of `beam − 1` branches with probability
    `clip(probability + weight · ΔH, 0, 1)`, where ΔH is by how much `early_entropy` of the turn
    after it exceeds that of the first turn. Branches may branch again. Earlier turns come first;
    what remains of the size is filled with samples of the prompt. `trunks` None: half of the size.
    """
    checks.check_range("beam", beam, 1, float("inf"), hint="it counts paths, 1 never branches")
    checks.check_range("probability", probability, 0.0, 1.0, hint="0.5 is the paper's")
    checks.check_positive("window", window, hint="it counts tokens, 20 in the authors' code")
    checks.check_range("vocabulary", vocabulary, 2, float("inf"), hint="it counts tokens")
    if trunks is not None:
        checks.check_positive("trunks", trunks, hint="None is half of the group")
    branching = Branching(beam - 1, probability, weight, window, vocabulary)

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        started = min(trunks or -(-size // 2), size)
        new = yield [Request(problem=problem, group=group, sample=n) for n in range(started)]
        members = [*new]
        while len(members) < size:
            room = size - len(members)
            points = branching.points(new, moment)[:room] if beam > 1 else []
            beginnings = points or [()] * room
            first = len(members)
            new = yield [
                Request(problem=problem, group=group, sample=first + n, turns=turns)
                for n, turns in enumerate(beginnings)
            ]
            members += new
        return members

    return HostedPlan(episodes=episodes)
