"""MMR1: problems drawn by the spread of their outcomes and of their texts."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_prompts
from gtpo_jax.parts import prompts


def mmr1(
    *,
    mixture: float = 0.5,
    every: int = 4,
    outcome_weight: float = 0.5,
    diversity_weight: float = 0.5,
    retention: float = 0.0,
) -> Modifier:
    """MMR1, Variance-Aware Sampling (arXiv 2509.21268): `P(i) ∝ VPS_i` for a part of the problems.

    `VPS_i = a · p_i (1 − p_i) + b · TDS_i`; `⌊mixture · prompts⌋` of a step are drawn by it, the
    others uniformly. Scores are computed anew every `every` steps. TDS: different 3-grams of tokens
    over all 3-grams of the problem's trajectories, one of the three measures of the public code.

    Published: mixture .5, 4 steps, no momentum (`retention` 0). The weights a and b are chosen;
    the public code's default has outcomes alone (1 and 0).

    Deviations: p and TDS are those of the rollouts that training makes anyway, where the paper
    samples all problems anew at each refresh; draws are without replacement, since a problem that
    comes twice in a step would give the same trajectories.
    """
    chosen = prompts.by_variance(
        mixture=mixture,
        every=every,
        outcome_weight=outcome_weight,
        diversity_weight=diversity_weight,
        retention=retention,
    )
    return lambda method: set_prompts(method, chosen, name="mmr1")
