"""Advantages predicted from log-ratios of trajectories, by regression: Reg-GRPO, REBEL."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks, ratios
from gtpo_jax.parts import groups
from gtpo_jax.parts.losses.contrasts import anchor_of
from gtpo_jax.parts.losses.loss import Loss, over_groups
from gtpo_jax.parts.losses.members import Members
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression:
    """`(1 / n) Σ_i (A_i − Â_i)²` over the n trajectories of the batch.

    `ρ_i = Σ_t (log π − log μ)` over the trained tokens, and `A_i` is the mean of their advantages.
    The prediction is `Â_i = (ρ_i − mean_g ρ) / sqrt(var_g ρ + eps²)`, or `scale (ρ_i − mean_g ρ)`
    with a fixed `scale`.

    On the first update of a step all ρ are 0: the first form has the slope 1 / eps there, the
    second `scale`.
    """

    eps: float = 0.1
    scale: float | None = None
    recompute: bool = False

    def __post_init__(self):
        checks.check_positive("eps", self.eps, hint="the usual spread of ρ in a group, 0.1 say")
        if self.scale is not None:
            checks.check_positive("scale", self.scale, hint="1 is usual, None divides by the std")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"proximal_logprobs"} if self.recompute else ())

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        anchor = anchor_of(batch, recompute=self.recompute)
        drift = members.total(ratios.log_ratios(logprobs, anchor))
        present, ids = members.present, members.group_ids
        centered = jnp.where(present, drift - groups.mean(drift, present, ids), 0.0)
        if self.scale is None:
            variance = groups.mean(jnp.square(centered), present, ids)
            predicted = centered / jnp.sqrt(variance + self.eps**2)
        else:
            predicted = self.scale * centered
        errors = jnp.where(present, jnp.square(members.advantages - predicted), 0.0)
        loss = jnp.sum(errors) / jnp.maximum(jnp.sum(present), 1)
        return loss, {"regression": loss}


def regression(*, eps: float = 0.1, scale: float | None = None, recompute: bool = False) -> Loss:
    """`Regression` as a loss."""
    return over_groups(Regression(eps=eps, scale=scale, recompute=recompute))
