"""An outcome that falls with the length of the response, compared within the group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.parts import facts
from gtpo_jax.parts.rewards.outcome import outcome_rewards
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar


def length_scaled_outcomes(
    success: Bool[Array, " M"],
    lengths: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    weight: Scalar = 0.05,
    wrong: Scalar = -1.0,
    shortest: Scalar = 0.0,
    ddof: int = 1,
    eps: Scalar = 1e-6,
) -> Float[Array, " M"]:
    """`exp(−weight · z)` for a success and `wrong` for a failure, 0 for rows that are not kept.

    `z = (length − mean) / (std + eps)` over the successes of the group; 0 if there is no deviation,
    and 0 for a group whose three shortest rows have a mean of at most `shortest`.
    """
    right = success & kept
    lengths = jnp.asarray(lengths, float)
    moments = masking.group_moments(lengths[:, None], right[:, None], group_ids, ddof=ddof)
    long_enough = mean_of_three_shortest(lengths, kept, group_ids) > shortest
    informative = (moments.std > 0) & (moments.count > ddof) & long_enough
    z = jnp.where(informative, (lengths - moments.mean) / (moments.std + eps), 0.0)
    # Failures may be far from the mean of successes: their exponential must not overflow.
    earned = jnp.exp(-weight * jnp.where(right, z, 0.0))
    return jnp.where(kept, jnp.where(right, earned, wrong), 0.0)


def mean_of_three_shortest(
    lengths: Float[Array, " M"], kept: Bool[Array, " M"], group_ids: Int[Array, " M"]
) -> Float[Array, " M"]:
    """The mean length of the three shortest kept rows of the group; infinite for fewer rows."""
    ids, kept, lengths = map(masking.everywhere, (group_ids, kept, lengths))
    order = jnp.lexsort((lengths, ~kept, ids))
    place = jnp.zeros_like(ids).at[order].set(jnp.arange(len(ids), dtype=ids.dtype))
    first = jax.ops.segment_min(place, ids, num_segments=len(ids))[ids]
    chosen = kept & (place - first < 3)

    def total(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(jnp.where(chosen, x, 0.0), ids, num_segments=len(ids))[ids]

    return jnp.where(total(jnp.ones_like(lengths)) == 3.0, total(lengths) / 3.0, jnp.inf)


def scaled_outcome(
    *,
    weight: Scalar = 0.05,
    wrong: Scalar = -1.0,
    shortest: Scalar = 0.0,
    ddof: int = 1,
    eps: Scalar = 1e-6,
) -> Reward:
    """The outcome scaled by length, on the last turn; see `length_scaled_outcomes`."""
    checks.check_range("ddof", ddof, 0, float("inf"), hint="1 is the released code's")

    def apply(episodes: EpisodeBatch) -> Array:
        outcomes = length_scaled_outcomes(
            episodes.success,
            jnp.asarray(facts.read(episodes, facts.RESPONSE_TOKENS)),
            episodes.included & jnp.any(episodes.turn_mask, axis=1),
            episodes.group_ids,
            weight=weight,
            wrong=wrong,
            shortest=shortest,
            ddof=ddof,
            eps=eps,
        )
        return outcome_rewards(outcomes, episodes.turn_mask)

    return Reward(apply, (facts.RESPONSE_TOKENS,))
