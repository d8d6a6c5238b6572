"""Losses per token: sums of terms, each of which names the scores it needs. One idea per file."""

from gtpo_jax.parts.losses.centering import score_centering
from gtpo_jax.parts.losses.cispo import WeightClip, cispo, cispo_surrogate
from gtpo_jax.parts.losses.clipped import Clip, Unclipped, clipped, clipped_surrogate
from gtpo_jax.parts.losses.contrasts import contrast, drift_limit
from gtpo_jax.parts.losses.corrections import (
    Acceptance,
    Correction,
    Measure,
    Truncation,
    Unit,
    binary_kl,
)
from gtpo_jax.parts.losses.curvature import predicted_shift, steady
from gtpo_jax.parts.losses.divergence import divergence
from gtpo_jax.parts.losses.dppo import Divergence, TrustRegion, dppo_surrogate
from gtpo_jax.parts.losses.entropy import entropy
from gtpo_jax.parts.losses.geometric import LogClamp
from gtpo_jax.parts.losses.imitation import imitation
from gtpo_jax.parts.losses.kept_likelihood import kept_likelihood
from gtpo_jax.parts.losses.loss import (
    FIELDS,
    GROUP_FIELDS,
    NEEDS,
    Diagnostics,
    Loss,
    Scores,
    Term,
    TermOfCandidates,
    TermOfMarks,
    TokenChoice,
    add,
    over_groups,
    term,
)
from gtpo_jax.parts.losses.marked import MarkedDivergence, MarkedDrift, MarkedReinforce
from gtpo_jax.parts.losses.members import GroupTerm, Members, members_of
from gtpo_jax.parts.losses.mismatch import ImportanceWeights, truncated_importance_weights
from gtpo_jax.parts.losses.pairs import pair_gradient
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate, SurrogateFn, TokenSurrogate
from gtpo_jax.parts.losses.preferences import group_preference, pair_preference
from gtpo_jax.parts.losses.regression import regression
from gtpo_jax.parts.losses.reinforce import Reinforce, Sides, Weight
from gtpo_jax.parts.losses.shares import with_group_share
from gtpo_jax.parts.losses.soft_gate import SoftGate, soft_gate_surrogate

__all__ = [
    "FIELDS",
    "GROUP_FIELDS",
    "NEEDS",
    "Acceptance",
    "Clip",
    "Correction",
    "Diagnostics",
    "Divergence",
    "GroupTerm",
    "ImportanceWeights",
    "LogClamp",
    "Loss",
    "MarkedDivergence",
    "MarkedDrift",
    "MarkedReinforce",
    "Measure",
    "Members",
    "PolicyTerm",
    "Reinforce",
    "Scores",
    "Sides",
    "SoftGate",
    "Surrogate",
    "SurrogateFn",
    "Term",
    "TermOfCandidates",
    "TermOfMarks",
    "TokenChoice",
    "TokenSurrogate",
    "Truncation",
    "TrustRegion",
    "Unclipped",
    "Unit",
    "Weight",
    "WeightClip",
    "add",
    "binary_kl",
    "cispo",
    "cispo_surrogate",
    "clipped",
    "clipped_surrogate",
    "contrast",
    "divergence",
    "dppo_surrogate",
    "drift_limit",
    "entropy",
    "group_preference",
    "imitation",
    "kept_likelihood",
    "members_of",
    "over_groups",
    "pair_gradient",
    "pair_preference",
    "predicted_shift",
    "regression",
    "score_centering",
    "soft_gate_surrogate",
    "steady",
    "term",
    "truncated_importance_weights",
    "with_group_share",
]
