"""Prompts: which problems come next and which groups are kept. One idea per file."""

from gtpo_jax.parts.prompts.in_order import in_order
from gtpo_jax.parts.prompts.prompts import Prompts, Proposal, SignalFn, all_groups
from gtpo_jax.parts.prompts.unequal import unequal, unequal_outcomes

__all__ = [
    "Prompts",
    "Proposal",
    "SignalFn",
    "all_groups",
    "in_order",
    "unequal",
    "unequal_outcomes",
]
