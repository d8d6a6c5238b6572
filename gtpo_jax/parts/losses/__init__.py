"""Losses per token: sums of terms, each of which names the scores it needs. One idea per file."""

from gtpo_jax.parts.losses.cispo import WeightClip, cispo, cispo_surrogate
from gtpo_jax.parts.losses.clipped import Clip, clipped, clipped_surrogate
from gtpo_jax.parts.losses.divergence import divergence
from gtpo_jax.parts.losses.entropy import entropy
from gtpo_jax.parts.losses.imitation import imitation
from gtpo_jax.parts.losses.loss import (
    FIELDS,
    NEEDS,
    Diagnostics,
    Loss,
    Scores,
    Term,
    TermOfCandidates,
    add,
    term,
)
from gtpo_jax.parts.losses.mismatch import ImportanceWeights, truncated_importance_weights
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate, Unit

__all__ = [
    "FIELDS",
    "NEEDS",
    "Clip",
    "Diagnostics",
    "ImportanceWeights",
    "Loss",
    "PolicyTerm",
    "Scores",
    "Surrogate",
    "Term",
    "TermOfCandidates",
    "Unit",
    "WeightClip",
    "add",
    "cispo",
    "cispo_surrogate",
    "clipped",
    "clipped_surrogate",
    "divergence",
    "entropy",
    "imitation",
    "term",
    "truncated_importance_weights",
]
