"""The reward of a greedy rollout as the baseline (ReMax, arXiv 2310.10505)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch

GREEDY = facts.from_plan(
    "greedy",
    "[M] int32, 1 for the greedy twin of a group, 0 for its samples",
    provider="the plan `plans.greedy_twin` records it",
)


def over_greedy() -> Credit:
    """`x_m − x_greedy(g)`, where x is a total reward, the same on all turns of a trajectory.

    0 in a group without a greedy trajectory of known outcome, and on that trajectory itself.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        greedy = jnp.asarray(facts.read(episodes, GREEDY)) > 0
        known = greedy & groups.members(episodes)
        there = groups.total(known.astype(x.dtype), known, episodes.group_ids) > 0
        baseline = groups.mean(x[:, 0], known, episodes.group_ids)
        return jnp.where((there & ~greedy)[:, None], x - baseline[:, None], 0.0)

    return stateless(values, needs=(GREEDY,))
