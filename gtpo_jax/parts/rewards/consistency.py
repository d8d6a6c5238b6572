"""A bonus for reasoning that makes the answer likely under a reference (arXiv 2506.16141)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Scalar


def consistency_bonuses(
    accuracy: Float[Array, " M"],
    answer_logprobs: Float[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    coefficient: Scalar,
    cap: Scalar = 0.95,
    margin: Scalar = 0.01,
) -> Float[Array, " M"]:
    """`coefficient · accuracy_i` for i in C with `q_i ≥ mean_C(q) − margin`, else 0;
    `q = min(e^lp, cap)`.

    C are the candidates of the group: rows with an accuracy above .1 and at least the group's mean.
    """
    likelihoods = jnp.minimum(jnp.exp(as_float(answer_logprobs)), cap)
    candidates = kept & (accuracy > 0.1) & (accuracy >= groups.mean(accuracy, kept, group_ids))
    threshold = groups.mean(likelihoods, candidates, group_ids) - margin
    return jnp.where(candidates & (likelihoods >= threshold), coefficient * accuracy, 0.0)


def consistency(coefficient: Scalar = 0.5, *, cap: Scalar = 0.95, margin: Scalar = 0.01) -> Reward:
    """The bonus of a success whose answer is likely given its reasoning, on the last turn; see
    `consistency_bonuses`.
    """
    checks.check_range("cap", cap, 0.0, 1.0, hint="it bounds a probability, 0.95 is usual")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        return consistency_bonuses(
            jnp.where(episodes.success, 1.0, 0.0),
            jnp.asarray(facts.read(episodes, facts.REFERENCE_ANSWER_LOGPROBS)),
            groups.members(episodes),
            episodes.group_ids,
            coefficient=coefficient,
            cap=cap,
            margin=margin,
        )

    return whole(apply, facts.REFERENCE_ANSWER_LOGPROBS)
