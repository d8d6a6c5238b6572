"""Variance-aware sampling: problems drawn by the spread of their outcomes and texts (MMR1)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import counts
from gtpo_jax.parts.counts import Tracker
from gtpo_jax.parts.prompts import draws
from gtpo_jax.parts.prompts.budgets import observe_outcomes
from gtpo_jax.parts.prompts.diversity import TEXT_DIVERSITY
from gtpo_jax.parts.prompts.prompts import (
    Outcomes,
    Prompts,
    Proposal,
    check_pool,
    even_sizes,
    in_turn,
)


def promotion_score(
    rates: jax.Array,
    diversity: jax.Array,
    *,
    outcome_weight: float = 0.5,
    diversity_weight: float = 0.5,
) -> jax.Array:
    """`VPS = a · p (1 − p) + b · TDS`: spread of outcomes, and diversity of texts."""
    rates = as_float(rates)
    return outcome_weight * rates * (1.0 - rates) + diversity_weight * as_float(diversity)


class Spread(NamedTuple):
    """State of variance-aware sampling, arrays `[N]`."""

    tracker: Tracker
    diversity: jax.Array
    scores: jax.Array  # weights of the draws, as they were at the last refresh
    steps: jax.Array  # [] int32


def by_variance(
    *,
    mixture: float = 0.5,
    every: int = 4,
    outcome_weight: float = 0.5,
    diversity_weight: float = 0.5,
    retention: float = 0.0,
) -> Prompts:
    """`⌊mixture · wanted⌋` problems of a round are drawn by their score, the rest uniformly, all
    without replacement. Scores are computed anew after every `every` steps.

    A problem that was not tried has p = 1/2 and diversity 1, the highest score.
    """
    checks.check_range("mixture", mixture, 0.0, 1.0, hint="0.5 is the paper's")
    checks.check_range("every", every, 1, float("inf"), hint="it counts steps between refreshes")
    weights = {"outcome_weight": outcome_weight, "diversity_weight": diversity_weight}
    for name, value in weights.items():
        checks.check_range(name, value, 0.0, float("inf"), hint="it weighs a part of the score")

    def init(problems: int | None) -> Spread:
        count = check_pool(problems, "mmr1")
        tracker, diversity = counts.begin(count), jnp.ones(count, jnp.float32)
        scores = promotion_score(counts.rates(tracker), diversity, **weights)
        return Spread(tracker, diversity, scores, jnp.zeros((), jnp.int32))

    def propose(
        state: Spread,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        del step
        by_score, evenly = jax.random.split(key)
        order = draws.mixed(
            evenly,
            draws.weighted(by_score, state.scores),
            of=int(mixture * wanted),
            every=wanted,
            count=wanted * rounds,
        )
        return Proposal(
            in_turn(order, wanted=wanted, rounds=rounds),
            even_sizes(wanted=wanted, rounds=rounds, group_size=group_size),
        )

    def observe(state: Spread, outcomes: Outcomes) -> Spread:
        tracker = observe_outcomes(state.tracker, outcomes, keep=retention)
        found = outcomes.further[TEXT_DIVERSITY.name]
        # Out of range, so dropped: a problem without a known outcome keeps what it had.
        place = jnp.where(outcomes.known, outcomes.problems, len(state.diversity))
        diversity = state.diversity.at[place].set(found.astype(jnp.float32), mode="drop")
        steps = state.steps + 1
        fresh = promotion_score(counts.rates(tracker), diversity, **weights)
        scores = jnp.where(steps % every == 0, fresh, state.scores)
        return Spread(tracker, diversity, scores, steps)

    return Prompts(
        init=init, propose=propose, observe=observe, pooled=True, outcomes=(TEXT_DIVERSITY,)
    )
