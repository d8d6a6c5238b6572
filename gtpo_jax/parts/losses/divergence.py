"""The divergence from a reference policy, as a term of the loss."""

from __future__ import annotations

import dataclasses

import jax

from gtpo_jax.maths import checks, divergences
from gtpo_jax.parts.losses.loss import Diagnostics, Loss, Scores
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True)
class DivergenceTerm:
    """`weight · KL(π ‖ π_ref)` of every token, by an estimator."""

    weight: float
    estimator: divergences.Estimator

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"})

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        assert batch.reference_logprobs is not None
        divergence = self.estimator(scores.logprobs, batch.reference_logprobs)
        return self.weight * divergence, {"reference_kl": divergence}


def divergence(weight: float, estimator: divergences.Estimator = divergences.kl_k3) -> Loss:
    """`weight · KL(π ‖ π_ref)`; π_ref is the policy that reinforcement learning began with."""
    checks.check_range(
        "weight", weight, 0.0, float("inf"), hint="it weighs a penalty, 0.001 to 0.1 is usual"
    )
    return Loss((DivergenceTerm(weight, estimator),))
