"""LLDS: what the policy did well or not badly must not become less likely."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks, ratios, units
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.corrections import Unit
from gtpo_jax.parts.losses.loss import Diagnostics, Loss, Scores
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptLikelihood:
    """`weight · g_u · 1[A_t ≥ 0] · max(0, log μ_t − log π_t)` of every token t of unit u, with
    `g_u = 1[Σ_{t ∈ u, A_t ≥ 0} (log μ_t − log π_t) > 0]`, which passes no gradient.

    A unit is a sequence, a turn, or a single token.
    """

    weight: float
    unit: Unit

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        old = jax.lax.stop_gradient(as_float(batch.behavior_logprobs))
        held = batch.loss_mask & (batch.token_advantages >= 0)
        fall = jnp.where(held, old - as_float(scores.logprobs), 0.0)
        gate = fall > 0
        if self.unit != "token":
            ids = units.row_unit_ids(batch, turns=self.unit == "turn")
            total = ratios.unit_values(
                fall, batch.loss_mask, ids, units=batch.tokens.size, how="sum"
            )
            gate &= total > 0
        penalty = jnp.where(gate, fall, 0.0)
        return self.weight * penalty, {"likelihood_penalty": jax.lax.stop_gradient(penalty)}


def kept_likelihood(*, weight: float = 0.2, unit: Unit = "sequence") -> Loss:
    """The penalty of LLDS (arXiv 2512.04220) on falling log-probs where A ≥ 0."""
    checks.check_range(
        "weight", weight, 0.0, float("inf"), hint="it weighs a penalty, 0.2 is the authors'"
    )
    return Loss((KeptLikelihood(weight=weight, unit=unit),))
