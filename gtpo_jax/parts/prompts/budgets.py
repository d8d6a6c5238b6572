"""Budgets: the rollouts of a step, divided among its problems (Knapsack RL, arXiv 2509.25849)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import counts
from gtpo_jax.parts.counts import Tracker
from gtpo_jax.parts.prompts.prompts import (
    Outcomes,
    Prompts,
    Proposal,
    State,
    check_enough,
    check_pool,
)


def information(rates: jax.Array) -> jax.Array:
    """`p (1 − p)²`: the gain of an update on a problem with success rate p, highest at p = 1/3."""
    rates = as_float(rates)
    return rates * (1.0 - rates) ** 2


def rollout_value(count: jax.Array | int, rates: jax.Array) -> jax.Array:
    """`V(n, p) = (1 − p^n − (1 − p)^n) p (1 − p)²`: the chance of unequal outcomes among n
    rollouts, times the gain of an update on them. 0 for n = 0.
    """
    rates, count = as_float(rates), jnp.asarray(count)
    unequal = 1.0 - rates**count - (1.0 - rates) ** count
    return jnp.where(count > 0, unequal * information(rates), 0.0)


def allocate(
    rates: jax.Array,
    seen: jax.Array,
    *,
    group_size: int,
    lowest: int = 2,
    highest: int = 128,
    confidence: float | None = 0.9,
) -> jax.Array:
    """Rollouts `[P]` int32 of problems with success rates `[P]`, `P · group_size` together, each
    from `lowest` to `highest`.

    Maximizes `Σ_i V(n_i, p_i)`. The gain of one more rollout, `(p^n (1 − p) + (1 − p)^n p) p
    (1 − p)²`, falls with n, so V is concave from n = 1 on, and taking the largest gain again and
    again is optimal. That is the same as taking the largest gains of all, in one sort.

    Rules beside the maximum, as in the public code: a problem not `seen` gets `group_size`. A
    problem with 0 < p < 1 takes part up to the `n ≥ log(1 − c) / log max(p, 1 − p)` at which its
    outcomes are unequal with about the `confidence` c; what is then left goes evenly to problems
    without success, then beyond that number, and last to problems without failure. None: such
    problems get more than `lowest` only where all others have `highest`.
    """
    count, budget = len(rates), len(rates) * group_size
    highest = min(highest, budget - (count - 1) * lowest)
    check_sizes(group_size, lowest, highest)
    if highest == lowest:
        return jnp.full(count, lowest, jnp.int32)
    rates = as_float(rates)
    before = jnp.arange(lowest, highest)[:, None]  # [H, 1], rollouts before one more
    gains = rates**before * (1.0 - rates) + (1.0 - rates) ** before * rates
    gains = gains * information(rates)
    between = (rates > 0) & (rates < 1)
    tier = jnp.where(between, 1, jnp.where(rates <= 0, 2, 4))
    if confidence is not None:
        enough = math.log(1.0 - confidence) / jnp.log(jnp.where(between, _side(rates), 0.5))
        tier = jnp.where(between & (before >= jnp.ceil(enough)), 3, tier)
    tier = jnp.where(seen, tier, jnp.where(before < group_size, 0, 5))
    gains = jnp.where(seen, gains, 0.0)
    # Stable: of equal gains, the one of the smallest group comes first.
    order = jnp.lexsort((-gains.ravel(), jnp.broadcast_to(tier, gains.shape).ravel()))
    chosen = order[: budget - count * lowest] % count
    return jnp.full(count, lowest, jnp.int32).at[chosen].add(1)


def check_sizes(group_size: int, lowest: int, highest: int) -> None:
    """Raises unless `1 ≤ lowest ≤ group_size ≤ highest`."""
    if not 1 <= lowest <= group_size <= highest:
        raise ValueError(
            f"a budget needs 1 <= lowest <= group size <= highest, got {lowest}, {group_size} and"
            f" {highest}; change lowest, highest or train.group_size"
        )


class Budgeted(NamedTuple):
    """State of a budget."""

    inner: State  # of the prompts that choose the problems
    tracker: Tracker  # [N]


def knapsack(
    inner: Prompts,
    *,
    lowest: int = 2,
    highest: int = 128,
    confidence: float | None = 0.9,
    retention: float = 0.0,
) -> Prompts:
    """The problems of `inner`, with the rollouts of each round divided by `allocate`.

    Success rates are those of the last steps that tried the problem: old counts shrink by
    `retention` when it is tried again.
    """
    checks.check_range("retention", retention, 0.0, 1.0, hint="0 keeps the last visit only")
    if confidence is not None:
        checks.check_range("confidence", confidence, 0.0, 1.0, hint="0.9 is the public code's")

    def init(problems: int | None) -> Budgeted:
        count = check_pool(problems, "knapsack")
        return Budgeted(inner.init(count), counts.begin(count))

    def propose(
        state: Budgeted,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        proposal = inner.propose(
            state.inner, key, step, wanted=wanted, rounds=rounds, group_size=group_size
        )
        count = len(state.tracker.right)
        check_enough(wanted, count)
        problems = proposal.problems % count
        known = (state.tracker.right + state.tracker.wrong)[problems] > 0
        estimates = counts.rates(state.tracker)[problems]

        def divide(rates: jax.Array, seen: jax.Array) -> jax.Array:
            return allocate(
                rates,
                seen,
                group_size=group_size,
                lowest=lowest,
                highest=highest,
                confidence=confidence,
            )

        sizes = jax.vmap(divide)(estimates.reshape(rounds, -1), known.reshape(rounds, -1))
        return Proposal(problems, sizes.reshape(-1))

    def observe(state: Budgeted, outcomes: Outcomes) -> Budgeted:
        return Budgeted(
            inner.observe(state.inner, outcomes),
            observe_outcomes(state.tracker, outcomes, keep=retention),
        )

    return inner._replace(
        init=init,
        propose=propose,
        observe=observe,
        pooled=True,
        largest=lambda wanted, size: min(highest, wanted * size - (wanted - 1) * lowest),
    )


def observe_outcomes(
    tracker: Tracker,
    outcomes: Outcomes,
    *,
    keep: float,
    others: float = 1.0,
    toward: float = 0.0,
) -> Tracker:
    """The counts `[N]` after the outcomes of a step; see `counts.count_outcomes`."""
    return counts.count_outcomes(
        tracker,
        outcomes.problems,
        outcomes.successes,
        outcomes.included - outcomes.successes,
        met=outcomes.known,
        keep=keep,
        others=others,
        toward=toward,
    )


def _side(rates: jax.Array) -> jax.Array:
    return jnp.maximum(rates, 1.0 - rates)
