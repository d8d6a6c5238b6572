"""Spreads: how the advantage of a turn is divided among its tokens. One idea per file."""

from gtpo_jax.parts.spreads.conflicts import Conflicts, conflicts, mean_entropies, protected
from gtpo_jax.parts.spreads.covariances import covariances, most_covariant, without_covariant
from gtpo_jax.parts.spreads.entropy_scaled import entropy_factors, entropy_scaled
from gtpo_jax.parts.spreads.entropy_shares import by_entropy, token_rewards
from gtpo_jax.parts.spreads.likeness import spared, sparing
from gtpo_jax.parts.spreads.prefix_shares import multiplicities, once_for_shared, prefix_ids
from gtpo_jax.parts.spreads.selected import of_high_entropy, of_large_steps
from gtpo_jax.parts.spreads.spread import (
    Mark,
    Spread,
    Written,
    evenly,
    facts_of,
    needing,
    written_tokens,
    written_width,
)

__all__ = [
    "Conflicts",
    "Mark",
    "Spread",
    "Written",
    "by_entropy",
    "conflicts",
    "covariances",
    "entropy_factors",
    "entropy_scaled",
    "evenly",
    "facts_of",
    "mean_entropies",
    "most_covariant",
    "multiplicities",
    "needing",
    "of_high_entropy",
    "of_large_steps",
    "once_for_shared",
    "prefix_ids",
    "protected",
    "spared",
    "sparing",
    "token_rewards",
    "without_covariant",
    "written_tokens",
    "written_width",
]
