"""Terms that act on marked tokens, or with a weight that changes from step to step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import divergences
from gtpo_jax.maths.precision import as_float
from gtpo_jax.maths.ratios import log_ratios
from gtpo_jax.parts.losses.loss import Diagnostics, Scores
from gtpo_jax.parts.spreads import Mark
from gtpo_jax.types import TokenBatch


def read_mark(batch: TokenBatch, mark: Mark) -> jax.Array:
    """The numbers `[B, T]` of a mark."""
    assert batch.marks is not None
    return jax.lax.stop_gradient(as_float(batch.marks[mark.name]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedDrift:
    """`weight · b_t · |log π_t − log μ_t|` with the mark b_t of the token (KL-Cov)."""

    weight: float
    mark: Mark

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def marks(self) -> tuple[Mark, ...]:
        return (self.mark,)

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        drift = jnp.abs(log_ratios(scores.logprobs, batch.behavior_logprobs))
        marked = read_mark(batch, self.mark)
        return self.weight * marked * drift, {self.mark.name: marked}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedDivergence:
    """`b_t · KL(π ‖ π_ref)` with the mark b_t of the token, such as a weight that is a schedule."""

    mark: Mark
    estimator: divergences.Estimator = divergences.kl_k3

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"})

    @property
    def marks(self) -> tuple[Mark, ...]:
        return (self.mark,)

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        assert batch.reference_logprobs is not None
        divergence = self.estimator(scores.logprobs, batch.reference_logprobs)
        weight = read_mark(batch, self.mark)
        return weight * divergence, {"reference_kl": divergence, self.mark.name: weight}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedReinforce:
    """`−weight · b_t · log π_t` with the mark b_t of the token: REINFORCE without a ratio."""

    weight: float
    mark: Mark

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def marks(self) -> tuple[Mark, ...]:
        return (self.mark,)

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        marked = read_mark(batch, self.mark)
        return -self.weight * marked * as_float(scores.logprobs), {self.mark.name: marked}
