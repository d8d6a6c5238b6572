"""Links that scale the reward of successes: by their tool calls, or by how likely they were."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking, turns
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, State, stateless
from gtpo_jax.types import EpisodeBatch, Scalar

MANY = 2**30
"""More calls than a trajectory can have."""


def scale_successes(values: jax.Array, factors: jax.Array, episodes: EpisodeBatch) -> jax.Array:
    """The values `[M, K]`, times a factor `[M]` on the last turn of each success."""
    right = groups.members(episodes) & episodes.success
    chosen = turns.last_turns(episodes.turn_mask) & right[:, None]
    return jnp.where(chosen, values * factors[:, None], values)


def productivity_factors(
    calls: Int[Array, " M"], fewest: Int[Array, " M"], *, limit: Scalar
) -> Float[Array, " M"]:
    """`sin(π m / (m + n))` if n > 0, else `cos(π m / (2 m + limit))`; m = calls, n = fewest.

    It is 1 for m = n, and symmetric in the ratio of m and n. The paper writes the sine as
    `sin(f π / (2 n))` with `f = 2 n m / (m + n)`, which is the same number.
    """
    m, n = jnp.asarray(calls, float), jnp.asarray(fewest, float)
    sine = jnp.sin(jnp.pi * m / jnp.maximum(m + n, 1.0))
    # The sine of π / 2 is exact, the one of a rounded quotient need not be.
    sine = jnp.where(m == n, 1.0, sine)
    return jnp.where(n > 0, sine, jnp.cos(jnp.pi * m / (2.0 * m + limit)))


def productive(*, alpha: Scalar = 1.0, limit: Scalar = 3.0, slots: int = 0) -> Credit:
    """The value on the last turn of a success, times `alpha · productivity_factors`.

    n is the smallest number of calls among the successes of the group. With `slots`, it is the
    smallest of all steps so far: the state `[slots]` holds it for each problem, and problems with
    equal ids modulo `slots` share a slot.
    """
    checks.check_positive("limit", limit, hint="it is the largest number of calls, 3 or 4")
    checks.check_range("slots", slots, 0, 2**31 - 1, hint="0 keeps no memory of earlier steps")
    needs = (facts.CALLS, facts.PROBLEMS) if slots else (facts.CALLS,)

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        calls = jnp.asarray(facts.read(episodes, facts.CALLS))
        calls = jnp.sum(jnp.where(episodes.turn_mask, calls, 0), axis=1, dtype=jnp.int32)
        right = groups.members(episodes) & episodes.success
        calls, right = masking.everywhere(calls), masking.everywhere(right)
        fewest = groups.smallest(calls, right, episodes.group_ids, empty=MANY)
        if slots:
            slot = masking.everywhere(jnp.asarray(facts.read(episodes, facts.PROBLEMS)) % slots)
            state = jnp.asarray(state).at[slot].min(jnp.where(right, calls, MANY))
            fewest = jnp.minimum(fewest, state[slot])
        factors = alpha * productivity_factors(calls, fewest, limit=limit)
        return state, scale_successes(values, factors, episodes)

    return Credit(lambda: jnp.full(slots, MANY, jnp.int32), apply, needs)


def likelihood_ranks(
    logprobs: Float[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Int[Array, " M"]:
    """The number of kept rows of the group that are less likely; of equal ones, the earlier is."""
    index = jnp.arange(len(logprobs))
    other = masking.everywhere(logprobs)
    earlier = (other == logprobs[:, None]) & (index < index[:, None])
    below = (other < logprobs[:, None]) | earlier
    return jnp.sum(groups.pairs(group_ids, kept) & below, axis=1)


def unlikely(penalty: Scalar = 0.25) -> Credit:
    """The value on the last turn of a success, times `1 − penalty · rank / G`.

    The rank is that of the mean log-prob of the row's tokens, 0 for the least likely of the G
    included rows of the group; see `likelihood_ranks`.
    """
    checks.check_range("penalty", penalty, 0.0, 1.0, hint="0.25 is the paper's")

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        tokens = jnp.asarray(facts.read(episodes, facts.TURN_TOKENS), float)
        tokens = jnp.where(episodes.turn_mask, tokens, 0.0)
        logprobs = as_float(facts.read(episodes, facts.TURN_LOGPROBS))
        sums = jnp.sum(jnp.where(episodes.turn_mask, logprobs, 0.0) * tokens, axis=1)
        kept = groups.members(episodes)
        means = sums / jnp.maximum(jnp.sum(tokens, axis=1), 1.0)
        ranks = likelihood_ranks(means, kept, episodes.group_ids)
        count = groups.total(kept.astype(jnp.int32), kept, episodes.group_ids)
        factors = 1.0 - penalty * ranks / jnp.maximum(count, 1)
        return scale_successes(x, factors, episodes)

    return stateless(values, needs=(facts.TURN_TOKENS, facts.TURN_LOGPROBS))
