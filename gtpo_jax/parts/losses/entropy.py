"""The entropy of the policy, as a term of the loss."""

from __future__ import annotations

import dataclasses

import jax

from gtpo_jax.parts.losses.loss import Diagnostics, Loss, Scores
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True)
class EntropyTerm:
    """`weight · H(π(· | context))` of every token, in nats."""

    weight: float

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        del batch
        return self.weight * scores.entropies, {}


def entropy(weight: float) -> Loss:
    """`weight · H` of every token: a negative weight is a bonus for exploring."""
    return Loss((EntropyTerm(weight),))
