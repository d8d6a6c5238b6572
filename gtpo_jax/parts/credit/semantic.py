"""Semantic entropy: how far the answers of a group to one question disagree."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.parts.credit.recurring import dense_ids
from gtpo_jax.types import EpisodeBatch, Scalar

Estimator = Literal["rao", "mean"]
Form = Literal["reciprocal", "linear"]


def semantic_entropy(
    logprobs: Float[Array, " M"],
    clusters: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    estimator: Estimator = "rao",
) -> Float[Array, " M"]:
    """The entropy, in nats, of the clusters C of each row's group; 0 for a group without rows.

    `p(C) = Σ_{i ∈ C} exp(l_i) / Σ_i exp(l_i)` with the log-probs l. `rao` is `−Σ_C p(C) log p(C)`,
    `mean` is `−(1 / n) Σ_C log p(C)` over the n clusters. A negative cluster id is a cluster of its
    own.
    """
    logprobs, clusters, kept, ids = map(
        masking.everywhere, (as_float(logprobs), clusters, kept, group_ids)
    )
    alone = -1 - jnp.arange(len(ids), dtype=clusters.dtype)
    ids_of_clusters = jnp.where(clusters < 0, alone, clusters)[:, None]
    numbers = dense_ids(ids_of_clusters, kept[:, None], ids)[:, 0]

    def total(x: jax.Array, within: jax.Array) -> jax.Array:
        summed = jnp.where(kept, x, 0.0)
        return jax.ops.segment_sum(summed, within, num_segments=len(within))[within]

    likelihoods = jnp.exp(jnp.where(kept, logprobs - groups.largest(logprobs, kept, ids), 0.0))
    tiny = jnp.finfo(likelihoods.dtype).tiny
    shares = likelihoods / jnp.maximum(total(likelihoods, ids), tiny)
    log_mass = jnp.log(jnp.maximum(total(shares, numbers), tiny))
    if estimator == "rao":
        return -total(shares * log_mass, ids)
    once = 1.0 / jnp.maximum(total(jnp.ones_like(shares), numbers), 1.0)
    return -total(once * log_mass, ids) / jnp.maximum(total(once, ids), 1.0)


def certainty_factors(
    entropies: Float[Array, " M"], count: Float[Array, " M"], *, alpha: Scalar, form: Form
) -> Float[Array, " M"]:
    """`1 / (1 + s)` or `max(1 − s, 0)` with `s = alpha · SE / log G` for groups of G rows."""
    share = alpha * entropies / jnp.log(jnp.maximum(count, 2.0))
    return 1.0 / (1.0 + share) if form == "reciprocal" else jnp.maximum(1.0 - share, 0.0)


def less_if_uncertain(
    *, alpha: Scalar = 0.0417, estimator: Estimator = "rao", form: Form = "reciprocal"
) -> Credit:
    """`x · f(alpha · SE / log G)`; see `semantic_entropy` and `certainty_factors`.

    Clusters are equal final answers, likelihoods those of the mean log-prob of a trajectory.
    """
    checks.check_range(
        "alpha", alpha, 0.0, float("inf"), hint="it weighs the entropy, 0 changes nothing"
    )

    def factor(episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        answers = jnp.asarray(facts.read(episodes, facts.ANSWERS))
        logprobs = rows.read_mean_of_tokens(episodes, facts.TURN_LOGPROBS)
        entropies = semantic_entropy(
            logprobs, answers, kept, episodes.group_ids, estimator=estimator
        )
        count = rows.row_moments(logprobs, sets.group, kept, episodes.group_ids).count
        return certainty_factors(entropies, count.astype(entropies.dtype), alpha=alpha, form=form)

    return rows.times(factor, needs=(facts.ANSWERS, facts.TURN_LOGPROBS, facts.TURN_TOKENS))
