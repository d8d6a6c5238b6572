"""Problems drawn by a weight of their success rate: `sqrt(v (1 − v)) + floor`, after SPO."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import counts
from gtpo_jax.parts.counts import Tracker
from gtpo_jax.parts.prompts import draws
from gtpo_jax.parts.prompts.budgets import observe_outcomes
from gtpo_jax.parts.prompts.prompts import (
    Outcomes,
    Prompts,
    Proposal,
    check_pool,
    even_sizes,
    in_turn,
)


def deviation_weights(values: jax.Array, *, floor: float = 0.05) -> jax.Array:
    """`sqrt(v (1 − v)) + floor`: the spread of outcomes of a problem of value v, and a floor."""
    values = as_float(values)
    return jnp.sqrt(values * (1.0 - values)) + floor


def by_rate(
    order: Callable[[jax.Array, Tracker], jax.Array],
    *,
    name: str,
    prior: float,
    retention: float,
) -> Prompts:
    """Prompts that follow an order of all problems, `(key, counts) → [N]`, made of their counts.

    The counts begin at `prior` and shrink by `retention` when a problem is tried.
    """
    checks.check_range("prior", prior, 0.0, float("inf"), hint="0.5 is SPO's")
    checks.check_range("retention", retention, 0.0, 1.0, hint="1 forgets nothing")

    def init(problems: int | None) -> Tracker:
        return counts.begin(check_pool(problems, name), prior=prior)

    def propose(
        state: Tracker,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        del step
        return Proposal(
            in_turn(order(key, state), wanted=wanted, rounds=rounds),
            even_sizes(wanted=wanted, rounds=rounds, group_size=group_size),
        )

    def observe(state: Tracker, outcomes: Outcomes) -> Tracker:
        return observe_outcomes(state, outcomes, keep=retention)

    return Prompts(init=init, propose=propose, observe=observe, pooled=True)


def by_deviation(*, floor: float = 0.05, prior: float = 0.5, retention: float = 0.875) -> Prompts:
    """Draws problems without replacement by `sqrt(v (1 − v)) + floor` of their tracked value."""
    checks.check_positive("floor", floor, hint="0.05 is SPO's; solved problems come back by it")

    def order(key: jax.Array, state: Tracker) -> jax.Array:
        return draws.weighted(key, deviation_weights(counts.rates(state), floor=floor))

    return by_rate(order, name="spo_prompts", prior=prior, retention=retention)


def within(
    *, lowest: float = 0.2, highest: float = 0.6, trials: int = 5, retention: float = 1.0
) -> Prompts:
    """Uniform draws of the problems whose success rate lies in `[lowest, highest]`, and of those
    with fewer than `trials` known outcomes. Only where there are too few of them, others follow.
    """
    checks.check_range("lowest", lowest, 0.0, highest, hint="0.2 is the paper's")
    checks.check_range("highest", highest, lowest, 1.0, hint="0.6 is the paper's")

    def order(key: jax.Array, state: Tracker) -> jax.Array:
        found, rates = state.right + state.wrong, counts.rates(state)
        # Rates are quotients of small numbers: 3 / 5 must not miss 0.6 by its rounding.
        inside = (rates >= lowest - 1e-6) & (rates <= highest + 1e-6)
        return draws.best_first(key, ((found < trials) | inside).astype(jnp.float32))

    return by_rate(order, name="success_window", prior=0.0, retention=retention)
