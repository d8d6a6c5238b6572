"""Prompts: which problems come next, how many rollouts each gets, which groups are kept.

| part | problems of a step |
|---|---|
| `in_order()` | the next ones of the source |
| `uniform()` | drawn from the pool, all alike |
| `unequal()` | those of another part, and further ones in the place of groups of equal outcomes |
| `knapsack()` | those of another part, with unequal numbers of rollouts |
| `thompson()` | the highest `p (1 − p)²` for drawn success rates p |
| `by_deviation()` | drawn by `sqrt(v (1 − v)) + floor` |
| `by_variance()` | a part drawn by `a p (1 − p) + b · diversity`, the others all alike |
| `within()` | those whose success rate lies in a window |
| `by_bucket()` | the easiest, a growing share of all |
"""

from gtpo_jax.parts.prompts.buckets import by_bucket
from gtpo_jax.parts.prompts.budgets import allocate, information, knapsack, rollout_value
from gtpo_jax.parts.prompts.diversity import LENGTH, TEXT_DIVERSITY, distinct, text_diversity
from gtpo_jax.parts.prompts.in_order import check_rounds, in_order, uniform
from gtpo_jax.parts.prompts.prompts import (
    Outcome,
    Outcomes,
    Prompts,
    Proposal,
    SignalFn,
    all_groups,
)
from gtpo_jax.parts.prompts.thompson import draw_rates, thompson
from gtpo_jax.parts.prompts.unequal import unequal, unequal_outcomes
from gtpo_jax.parts.prompts.variance import by_variance, promotion_score
from gtpo_jax.parts.prompts.weighted import by_deviation, deviation_weights, within

__all__ = [
    "LENGTH",
    "TEXT_DIVERSITY",
    "Outcome",
    "Outcomes",
    "Prompts",
    "Proposal",
    "SignalFn",
    "all_groups",
    "allocate",
    "by_bucket",
    "by_deviation",
    "by_variance",
    "check_rounds",
    "deviation_weights",
    "distinct",
    "draw_rates",
    "in_order",
    "information",
    "knapsack",
    "promotion_score",
    "rollout_value",
    "text_diversity",
    "thompson",
    "unequal",
    "unequal_outcomes",
    "uniform",
    "within",
]
