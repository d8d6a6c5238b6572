"""Losses per token: sums of terms, each of which names the scores it needs. One idea per file."""

from gtpo_jax.parts.losses.cispo import WeightClip, cispo, cispo_surrogate
from gtpo_jax.parts.losses.clipped import Clip, clipped, clipped_surrogate
from gtpo_jax.parts.losses.divergence import divergence
from gtpo_jax.parts.losses.entropy import entropy
from gtpo_jax.parts.losses.imitation import imitation
from gtpo_jax.parts.losses.loss import (
    FIELDS,
    GROUP_FIELDS,
    NEEDS,
    Diagnostics,
    Loss,
    Scores,
    Term,
    TermOfCandidates,
    add,
    over_groups,
    term,
)
from gtpo_jax.parts.losses.members import GroupTerm, Members, members_of
from gtpo_jax.parts.losses.mismatch import ImportanceWeights, truncated_importance_weights
from gtpo_jax.parts.losses.policy import PolicyTerm, Surrogate, Unit
from gtpo_jax.parts.losses.shares import with_group_share

__all__ = [
    "FIELDS",
    "GROUP_FIELDS",
    "NEEDS",
    "Clip",
    "Diagnostics",
    "GroupTerm",
    "ImportanceWeights",
    "Loss",
    "Members",
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
    "members_of",
    "over_groups",
    "term",
    "truncated_importance_weights",
    "with_group_share",
]
