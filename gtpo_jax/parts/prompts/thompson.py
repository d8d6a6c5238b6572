"""Thompson sampling of problems: the gain of an update under a drawn success rate (VADE)."""

from __future__ import annotations

import jax

from gtpo_jax.maths import checks
from gtpo_jax.parts import counts
from gtpo_jax.parts.counts import Tracker
from gtpo_jax.parts.prompts.budgets import information, observe_outcomes
from gtpo_jax.parts.prompts.draws import best_first
from gtpo_jax.parts.prompts.prompts import (
    Outcomes,
    Prompts,
    Proposal,
    check_pool,
    even_sizes,
    in_turn,
)


def draw_rates(key: jax.Array, tracker: Tracker) -> jax.Array:
    """One success rate of each problem, `p ~ Beta(a, b)`, `[N]`."""
    return jax.random.beta(key, tracker.right, tracker.wrong)


def thompson(*, prior: float = 1.0, met: float = 0.9, others: float = 0.99) -> Prompts:
    """The problems with the highest `p (1 − p)²`, `p ~ Beta(a, b)` drawn anew in every step.

    `a ← c + q (a − c) + successes`, `b ← c + q (b − c) + failures` with `c = prior` and `q` = `met`
    for problems that the step tried, `others` for the rest: counts fade as the policy changes.
    """
    checks.check_positive("prior", prior, hint="1 is the uniform distribution")
    for name, value in (("met", met), ("others", others)):
        checks.check_range(name, value, 0.0, 1.0, hint="it is the part of old counts that stays")

    def init(problems: int | None) -> Tracker:
        return counts.begin(check_pool(problems, "vade"), prior=prior)

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
        rates_key, ties_key = jax.random.split(key)
        order = best_first(ties_key, information(draw_rates(rates_key, state)))
        return Proposal(
            in_turn(order, wanted=wanted, rounds=rounds),
            even_sizes(wanted=wanted, rounds=rounds, group_size=group_size),
        )

    def observe(state: Tracker, outcomes: Outcomes) -> Tracker:
        return observe_outcomes(state, outcomes, keep=met, others=others, toward=prior)

    return Prompts(init=init, propose=propose, observe=observe, pooled=True)
