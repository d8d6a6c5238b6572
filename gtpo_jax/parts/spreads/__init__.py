"""Spreads: how the advantage of a turn is divided among its tokens. One idea per file."""

from gtpo_jax.parts.spreads.conflicts import Conflicts, conflicts, mean_entropies, protected
from gtpo_jax.parts.spreads.entropy_scaled import entropy_factors, entropy_scaled
from gtpo_jax.parts.spreads.entropy_shares import by_entropy, token_rewards
from gtpo_jax.parts.spreads.likeness import spared, sparing
from gtpo_jax.parts.spreads.spread import (
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
    "Spread",
    "Written",
    "by_entropy",
    "conflicts",
    "entropy_factors",
    "entropy_scaled",
    "evenly",
    "facts_of",
    "mean_entropies",
    "needing",
    "protected",
    "spared",
    "sparing",
    "token_rewards",
    "written_tokens",
    "written_width",
]
