"""Links that weigh advantages by the entropy with which a trajectory was written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar

NEEDS = (facts.TURN_ENTROPIES, facts.TURN_TOKENS)


def over_relative_entropy(over: sets.Set = sets.batch, *, floor: Scalar = 1e-3) -> Credit:
    """`x[m, k] · mean_j(H_j) / H_m` with the mean entropies H of the tokens of trajectories, in
    nats, each at least `floor`; the mean is over the rows of a set.
    """
    checks.check_positive("floor", floor, hint="it bounds a divisor, 0.001 nats is our choice")

    def factor(episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        entropies = jnp.maximum(rows.read_mean_of_tokens(episodes, facts.TURN_ENTROPIES), floor)
        mean = rows.row_moments(entropies, over, kept, episodes.group_ids).mean
        return mean / entropies

    return rows.times(factor, needs=NEEDS)


def bounded_bonus(
    advantages: Float[Array, "M K"],
    entropies: Float[Array, " M"],
    *,
    weight: Scalar,
    limit: Scalar,
) -> Float[Array, "M K"]:
    """`A + weight · clip(H, −|A| / limit, |A| / limit)`: no sign changes if `weight < limit`."""
    bound = jnp.abs(advantages) / limit
    return advantages + weight * jnp.clip(entropies[:, None], -bound, bound)


def entropy_bonus(*, weight: Scalar = 0.4, limit: Scalar = 2.0) -> Credit:
    """`bounded_bonus` with the mean entropy of the tokens of a trajectory, in nats."""
    checks.check_range(
        "weight", weight, 0.0, float("inf"), hint="it weighs a bonus, 0 changes nothing"
    )
    checks.check_positive("limit", limit, hint="the bonus is at most weight · |A| / limit")

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        entropies = rows.read_mean_of_tokens(episodes, facts.TURN_ENTROPIES)
        return bounded_bonus(x, entropies.astype(x.dtype), weight=weight, limit=limit)

    return stateless(values, needs=NEEDS)
