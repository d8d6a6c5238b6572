"""Outcomes of a problem beside its successes: how different its texts are, and how long."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from gtpo_jax.parts.prompts.prompts import Outcome
from gtpo_jax.types import Trajectory


def distinct(sequences: Sequence[Sequence[Hashable]], n: int = 3) -> float:
    """The number of different n-grams over that of all n-grams of the sequences; 0 if there are
    none.
    """
    grams = [gram for s in sequences for gram in zip(*(s[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 0.0


def text_diversity(trajectories: Sequence[Trajectory]) -> float:
    """`distinct` of the tokens that the policy wrote, 3-grams within a turn."""
    turns = [turn.tokens[turn.given :].tolist() for t in trajectories for turn in t.turns]
    return distinct(turns)


def mean_length(trajectories: Sequence[Trajectory]) -> float:
    """Mean number of tokens that the policy wrote."""
    written = [sum(turn.own_tokens for turn in t.turns) for t in trajectories]
    return float(np.mean(written))


TEXT_DIVERSITY = Outcome(
    "text_diversity",
    text_diversity,
    "different 3-grams of tokens over all 3-grams of the trajectories of a problem, from 0 to 1",
)
LENGTH = Outcome("length", mean_length, "mean tokens that the policy wrote in a trajectory")
