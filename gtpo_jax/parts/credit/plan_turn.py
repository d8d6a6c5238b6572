"""Credit of the first turn as a plan, compared with the other plans of the group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import RELATIVE_THRESHOLD, check_options
from gtpo_jax.parts.rewards.planned import PLANS, quality_of, same_plan
from gtpo_jax.types import EpisodeBatch, Scalar


def plan_scores(
    quality: Float[Array, " M"],
    plans: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, " M"]:
    """`(q − mean) / (std + eps)` over the different plans of the group, each counted once.

    `quality` is equal for rows of one plan; a group of equal plans gives 0.
    """
    same = same_plan(plans, kept, group_ids)
    first = kept & (jnp.argmax(same, axis=1) == jnp.arange(len(kept)))
    values, counted = as_float(quality)[:, None], first[:, None]
    moments = masking.group_moments(values, counted, group_ids, ddof=ddof)
    informative = (moments.std > RELATIVE_THRESHOLD * moments.largest) & (moments.count > ddof)
    scores = (as_float(quality) - moments.mean) / (moments.std + eps)
    return jnp.where(kept & informative, scores, 0.0)


def plan_turn(*, ddof: int = 0, eps: Scalar = 1e-6) -> Credit:
    """The first turn has the score of its plan, the others keep their values; see `plan_scores`."""
    check_options(ddof, eps)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        plans = jnp.asarray(facts.read(episodes, PLANS))
        kept, quality = groups.members(episodes), quality_of(episodes)
        scores = plan_scores(quality, plans, kept, episodes.group_ids, ddof=ddof, eps=eps)
        return jnp.where(jnp.arange(x.shape[1]) == 0, scores[:, None], x)

    return stateless(values, needs=(PLANS,))
