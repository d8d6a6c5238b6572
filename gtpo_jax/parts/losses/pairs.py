"""Policy gradients of pairs of trajectories of a group: P3O."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks, ratios
from gtpo_jax.parts import groups
from gtpo_jax.parts.losses.loss import Loss, over_groups
from gtpo_jax.parts.losses.members import Members
from gtpo_jax.types import TokenBatch

Clipping = Literal["separate", "joint"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairGradient:
    """`(1 / M) Σ_g n_g · mean_{i < j ∈ g} loss_ij` over M trajectories in groups of n_g.

    `D = r_i − r_j`, `r_i = A_i − kl Σ_t (log μ − log π_ref)`, A_i the mean advantage of the
    trained tokens of trajectory i, and `ρ_i = exp Σ_t (log π − log μ)`, with i the better one:

        separate:  loss_ij = −½ [min(ρ_i D, clip(ρ_i) D) + min(−ρ_j D, −clip(ρ_j) D)]
        joint:     loss_ij = −½ min(D ρ_i / ρ_j, D clip(ρ_i / ρ_j))

    `clip` is to `1 ± limit`; None: no clipping. With π = μ both have the gradient of RLOO. Tables
    are `[M, M]`.
    """

    clipping: Clipping = "separate"
    limit: float | None = 0.2
    kl: float = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"} if self.kl else ())

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        earned = members.advantages
        if self.kl:
            assert batch.reference_logprobs is not None
            earned = earned - self.kl * members.total(
                batch.behavior_logprobs - batch.reference_logprobs
            )
        drift = members.total(logprobs - batch.behavior_logprobs)
        better = jnp.maximum(earned[:, None] - earned, 0.0)
        paired = members.present[:, None] & groups.pairs(members.group_ids, members.present)
        paired &= better > 0
        if self.clipping == "joint":
            gain, cut = self._gain(drift[:, None] - drift, better)
        else:
            of_better, low = self._gain(jnp.broadcast_to(drift[:, None], better.shape), better)
            of_worse, high = self._gain(jnp.broadcast_to(drift, better.shape), -better)
            gain, cut = of_better + of_worse, low | high
        present = members.present.astype(jnp.float32)
        sizes = groups.total(present, members.present, members.group_ids)
        share = 2.0 / (jnp.maximum(sizes - 1.0, 1.0) * jnp.maximum(jnp.sum(present), 1.0))
        loss = -0.5 * jnp.sum(jnp.where(paired, gain * share[:, None], 0.0))
        number = jnp.maximum(jnp.sum(paired), 1)
        return loss, {"pair_clip_fraction": jnp.sum(paired & cut) / number}

    def _gain(self, log_ratio: jax.Array, difference: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`min(ρ D, clip(ρ) D)`, and where the clip takes the gradient away."""
        bound = ratios.LOG_RATIO_BOUND
        ratio = jnp.exp(jnp.clip(log_ratio, -bound, bound))
        if self.limit is None:
            return ratio * difference, jnp.zeros(ratio.shape, bool)
        band = jnp.clip(ratio, 1.0 - self.limit, 1.0 + self.limit)
        whole, held = ratio * difference, band * difference
        return jnp.minimum(whole, held), held < whole


def pair_gradient(
    *, clipping: Clipping = "separate", limit: float | None = 0.2, kl: float = 0.0
) -> Loss:
    """`PairGradient` as a loss."""
    checks.check_range("limit", limit, 0.0, 1.0, hint="0.2 is usual, None is off")
    checks.check_range("kl", kl, 0.0, float("inf"), hint="it weighs a part of the reward, 0 is off")
    return over_groups(PairGradient(clipping=clipping, limit=limit, kl=kl))
