"""Preferences among the trajectories of a group, by their log-ratios to the reference policy.

`r_i = β Σ_t (log π − log π_ref)` over the trained tokens of trajectory i is its implicit reward.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.parts import groups
from gtpo_jax.parts.losses.loss import Loss, over_groups
from gtpo_jax.parts.losses.members import Members
from gtpo_jax.types import TokenBatch

INFINITY = float("inf")


def implicit_rewards(
    logprobs: jax.Array, batch: TokenBatch, members: Members, *, beta: float
) -> jax.Array:
    """`r_i`, `[M]`."""
    assert batch.reference_logprobs is not None
    return beta * members.total(logprobs - batch.reference_logprobs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupPreference:
    """`weight · mean_q [−log σ(mean_w r − mean_l r) + variance · Var_w(r)]`.

    w are the successes of question q, l its failures, and the mean is over questions that have
    both. The variance is that of the population: it pulls equally good responses together.
    """

    weight: float
    beta: float
    variance: float

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"})

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        rewards = implicit_rewards(logprobs, batch, members, beta=self.beta)
        ids = members.group_ids
        won = members.present & members.successes
        lost = members.present & ~members.successes
        best = groups.mean(rewards, won, ids)
        margin = best - groups.mean(rewards, lost, ids)
        spread = groups.mean(jnp.square(jnp.where(won, rewards - best, 0.0)), won, ids)
        losses = self.variance * spread - jax.nn.log_sigmoid(margin)
        # Each winner stands for its share of the question.
        winners = groups.total(won.astype(jnp.float32), won, ids)
        compared = won & (groups.total(lost.astype(jnp.int32), lost, ids) > 0)
        share = jnp.where(compared, 1.0 / jnp.maximum(winners, 1.0), 0.0)
        number = jnp.maximum(jnp.sum(share), 1.0)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(compared, x, 0.0) * share) / number

        named = {"preference_margin": mean(margin), "preference_variance": mean(spread)}
        return self.weight * mean(losses), named


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairPreference:
    """DPO (arXiv 2305.18290): `mean_{(i, j)} −log σ(r_i − r_j)` over pairs of a group.

    Trajectories with a positive advantage are preferred to those of their group with a negative
    one; others are in no pair. The mean is over all pairs of the batch, in a table `[M, M]`.
    """

    beta: float

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"})

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        rewards = implicit_rewards(logprobs, batch, members, beta=self.beta)
        chosen = members.present & (members.advantages > 0)
        rejected = members.present & (members.advantages < 0)
        paired = chosen[:, None] & groups.pairs(members.group_ids, rejected)
        margins = jnp.where(paired, rewards[:, None] - rewards, 0.0)
        number = jnp.maximum(jnp.sum(paired), 1)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(paired, x, 0.0)) / number

        right = mean((margins > 0).astype(margins.dtype))
        return mean(-jax.nn.log_sigmoid(margins)), {"pair_accuracy": right}


def group_preference(*, weight: float, beta: float, variance: float) -> Loss:
    """`GroupPreference` as a loss."""
    checks.check_range("weight", weight, 0.0, INFINITY, hint="0.01 is the paper's")
    checks.check_range("variance", variance, 0.0, INFINITY, hint="1 is the paper's, 0 is off")
    checks.check_positive("beta", beta, hint="it scales log-ratios, 0.1 is usual for DPO")
    return over_groups(GroupPreference(weight=weight, beta=beta, variance=variance))


def pair_preference(*, beta: float) -> Loss:
    """`PairPreference` as a loss."""
    checks.check_positive("beta", beta, hint="it scales log-ratios, 0.1 is usual")
    return over_groups(PairPreference(beta=beta))
