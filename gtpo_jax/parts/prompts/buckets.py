"""A curriculum over buckets of difficulty: easy problems first, then harder ones beside them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.parts import counts
from gtpo_jax.parts.counts import Tracker
from gtpo_jax.parts.prompts import draws
from gtpo_jax.parts.prompts.budgets import observe_outcomes
from gtpo_jax.parts.prompts.diversity import LENGTH
from gtpo_jax.parts.prompts.prompts import (
    Outcomes,
    Prompts,
    Proposal,
    check_pool,
    even_sizes,
    in_turn,
)


class Difficulty(NamedTuple):
    """State of a curriculum, arrays `[N]`."""

    tracker: Tracker
    length: jax.Array  # mean tokens when the problem was last tried; NaN before


def by_bucket(
    *,
    buckets: int = 3,
    every: int = 30,
    by: Literal["success", "length"] = "success",
    retention: float = 0.0,
) -> Prompts:
    """Step s draws uniformly from the easiest `⌈N · (⌊s / every⌋ + 1) / buckets⌉` of N problems.

    The easiest have the highest success rate, or with `by="length"` the shortest trajectories, when
    they were last tried. A problem that was not tried counts as average: rate 1/2, or the median
    length; equal ones stand in the order of the source. After `buckets · every` steps all problems
    are drawn. A step always has `wanted` problems to choose from.
    """
    checks.check_range("buckets", buckets, 1, float("inf"), hint="1 draws from all problems")
    checks.check_range("every", every, 1, float("inf"), hint="it counts steps")
    if by not in ("success", "length"):
        raise ValueError(f"by must be success or length, got {by!r}; it says what is easy")

    def init(problems: int | None) -> Difficulty:
        count = check_pool(problems, "difficulty_buckets")
        return Difficulty(counts.begin(count), jnp.full(count, jnp.nan, jnp.float32))

    def ease(state: Difficulty) -> jax.Array:
        if by == "success":
            return counts.rates(state.tracker)
        tried = ~jnp.isnan(state.length)
        middle = jnp.where(jnp.any(tried), jnp.nanmedian(state.length), 0.0)
        return -jnp.where(tried, state.length, middle)

    def propose(
        state: Difficulty,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        count = len(state.length)
        rank = jnp.zeros(count, jnp.int32).at[jnp.argsort(-ease(state))].set(jnp.arange(count))
        opened = jnp.minimum(step // every + 1, buckets)
        admitted = jnp.maximum(-(-count * opened // buckets), wanted)
        order = draws.best_first(key, (rank < admitted).astype(jnp.float32))
        return Proposal(
            in_turn(order, wanted=wanted, rounds=rounds),
            even_sizes(wanted=wanted, rounds=rounds, group_size=group_size),
        )

    def observe(state: Difficulty, outcomes: Outcomes) -> Difficulty:
        place = jnp.where(outcomes.known, outcomes.problems, len(state.length))
        length = outcomes.further[LENGTH.name].astype(jnp.float32)
        return Difficulty(
            observe_outcomes(state.tracker, outcomes, keep=retention),
            state.length.at[place].set(length, mode="drop"),
        )

    return Prompts(init=init, propose=propose, observe=observe, pooled=True, outcomes=(LENGTH,))
