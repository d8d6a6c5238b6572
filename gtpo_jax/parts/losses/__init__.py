"""Losses per token: sums of terms, each of which names the scores it needs. One idea per file."""

from gtpo_jax.parts.losses.centering import score_centering
from gtpo_jax.parts.losses.cispo import WeightClip, cispo, cispo_surrogate
from gtpo_jax.parts.losses.clipped import Clip, clipped, clipped_surrogate
from gtpo_jax.parts.losses.corrections import (
    Acceptance,
    Correction,
    Measure,
    Truncation,
    Unit,
    binary_kl,
)
from gtpo_jax.parts.losses.divergence import divergence
from gtpo_jax.parts.losses.dppo import Divergence, TrustRegion, dppo_surrogate
from gtpo_jax.parts.losses.entropy import entropy
from gtpo_jax.parts.losses.imitation import denoising, imitation
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
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate, SurrogateFn, TokenSurrogate
from gtpo_jax.parts.losses.sequence import SequenceTerm

__all__ = [
    "FIELDS",
    "NEEDS",
    "Acceptance",
    "Clip",
    "Correction",
    "Diagnostics",
    "Divergence",
    "ImportanceWeights",
    "Loss",
    "Measure",
    "PolicyTerm",
    "Scores",
    "SequenceTerm",
    "Surrogate",
    "SurrogateFn",
    "Term",
    "TermOfCandidates",
    "TokenSurrogate",
    "Truncation",
    "TrustRegion",
    "Unit",
    "WeightClip",
    "add",
    "binary_kl",
    "cispo",
    "cispo_surrogate",
    "clipped",
    "clipped_surrogate",
    "denoising",
    "divergence",
    "dppo_surrogate",
    "entropy",
    "imitation",
    "score_centering",
    "term",
    "truncated_importance_weights",
]
