"""Statistics of trajectories: one number a row, over rows of the group or of the batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch

ROW_SETS: dict[str, sets.Set] = {"group": sets.group, "batch": sets.batch}
"""Sets of rows by name."""


def row_moments(
    values: Shaped[Array, " M"], over: sets.Set, kept: Bool[Array, " M"], group_ids: jax.Array
) -> sets.Moments:
    """Count, mean and deviation, each `[M]`, over the kept rows of the set of each row."""
    moments = over(as_float(values)[:, None], kept[:, None], group_ids, 0)
    return sets.Moments(*(x[:, 0] for x in moments))


def mean_of_tokens(
    turn_means: Float[Array, "M K"], turn_tokens: Int[Array, "M K"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, " M"]:
    """The mean over all tokens of a row, from the means of its turns; 0 without a token."""
    weights = as_float(jnp.where(turn_mask, turn_tokens, 0))
    total = jnp.sum(jnp.where(turn_mask, as_float(turn_means), 0.0) * weights, axis=1)
    return total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


def read_mean_of_tokens(episodes: EpisodeBatch, fact: Fact) -> Float[Array, " M"]:
    """`mean_of_tokens` of a fact that holds the mean of each turn; reads `facts.TURN_TOKENS`."""
    tokens = jnp.asarray(facts.read(episodes, facts.TURN_TOKENS))
    return mean_of_tokens(jnp.asarray(facts.read(episodes, fact)), tokens, episodes.turn_mask)


def times(factor: Callable[[EpisodeBatch], jax.Array], *, needs: tuple[Fact, ...] = ()) -> Credit:
    """`x[m, k] · factor[m]`, for a factor `[M]` of trajectories."""
    return stateless(lambda x, episodes: x * factor(episodes)[:, None], needs=needs)
