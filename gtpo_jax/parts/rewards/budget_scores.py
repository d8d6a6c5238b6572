"""The score of the answer that a trajectory would give after each of its turns."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gtpo_jax.maths import turns
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Trajectory


def shown_answers(trajectory: Trajectory) -> list[float]:
    """One score for each turn: 1 if the last line that the tool has printed by then is the right
    answer, as a text.
    """
    right = _plain(trajectory.problem.answer)
    scores, shown = [], ""
    for turn in trajectory.turns:
        lines = [line for result in turn.results for line in result.stdout.splitlines()]
        shown = next((line for line in map(_plain, reversed(lines)) if line), shown)
        scores.append(float(shown == right and right != ""))
    return scores


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
    scores = np.zeros((len(trajectories), max_turns), np.float32)
    for row, trajectory in enumerate(trajectories):
        scores[row, : len(trajectory.turns)] = shown_answers(trajectory)
    return scores


BUDGET_SCORES = Fact(
    "budget_scores",
    _gather,
    "[M, K] float32, score of the answer if it had to be given after turn k; with the Python tool"
    " that answer is the last line printed",
)


def budget_scores(scores: Reward | None = None) -> Reward:
    """`score[m, k]`, the score of an answer given after turn k, for turns before the last.

    The last turn gives its answer, or none: its score is the outcome, another part of the reward.
    `scores` are those of one's own, by default the fact `budget_scores`; see `shown_answers`.
    """
    source = scores or Reward(lambda e: jnp.asarray(facts.read(e, BUDGET_SCORES)), (BUDGET_SCORES,))

    def apply(episodes: EpisodeBatch) -> Array:
        return jnp.where(turns.last_turns(episodes.turn_mask), 0.0, source.apply(episodes))

    return Reward(apply, source.facts)
