"""Plans: which episodes a problem gets, and which follow them. One idea per file."""

from gtpo_jax.parts.plans.independent import independent
from gtpo_jax.parts.plans.plan import Capacity, Episodes, EpisodesFn, Plan

__all__ = ["Capacity", "Episodes", "EpisodesFn", "Plan", "independent"]
