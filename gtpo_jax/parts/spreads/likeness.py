"""Failures lose less where they resemble the successes of their group (NTHR)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.spreads.spread import Spread, Written, facts_of, needing
from gtpo_jax.types import EpisodeBatch, Scalar


def spared(
    advantages: Float[Array, "M L"],
    likeness: Float[Array, "M L"],
    mask: Bool[Array, "M L"],
    success: Bool[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    beta: Scalar = 1.0,
    eta: Scalar | None = None,
) -> Float[Array, "M L"]:
    """`A' = eta A` for tokens of failures with A < 0 and `s > beta · min_i mean_t s_it`, else A.

    The minimum is over the successes i of the group, and the mean over their tokens. `eta` is
    `2 |½ − p|` by default, p the share of successes. A group without successes stays as it is.
    """
    likeness, advantages = as_float(likeness), as_float(advantages)
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)
    means = jnp.sum(jnp.where(mask, likeness, 0.0), axis=1) / count
    right = kept & success & jnp.any(mask, axis=1)
    threshold = beta * groups.smallest(means, right, group_ids, empty=0.0)
    known = groups.total(right.astype(jnp.int32), right, group_ids) > 0
    share = groups.mean(success.astype(advantages.dtype), kept, group_ids)
    factor = 2.0 * jnp.abs(0.5 - share) if eta is None else jnp.full(share.shape, eta, share.dtype)
    wrong = kept & ~success & known
    near = wrong[:, None] & (advantages < 0) & (likeness > threshold[:, None])
    return jnp.where(near & mask, factor[:, None] * advantages, advantages)


def sparing(spread: Spread, *, beta: Scalar = 1.0, eta: Scalar | None = None) -> Spread:
    """`spared`, applied to the advantages that another spread gives to tokens."""
    checks.check_range("eta", eta, 0.0, 1.0, hint="it scales advantages; None is 2 |1/2 - p|")

    def apply(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        return spared(
            spread(advantages, written, episodes),
            jnp.asarray(facts.read(episodes, facts.TOKEN_LIKENESS)),
            jnp.asarray(written.turn_ids) >= 0,
            episodes.success,
            groups.members(episodes),
            episodes.group_ids,
            beta=beta,
            eta=eta,
        )

    return needing(apply, *facts.union(facts_of(spread), [facts.TOKEN_LIKENESS]))
