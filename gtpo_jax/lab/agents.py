"""Worlds of several agents: each episode becomes one trajectory per agent."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.history import History
from gtpo_jax.lab.worlds.world import World


def split(world: World, history: History) -> History:
    """`rows · M` trajectories: the main agent's of all episodes, then the next agent's.

    A trajectory holds the turns of its agent, counted anew, and shares the verdict of the episode.
    It gets the facts `agents` (its agent) and `parents` (the row of the main agent). A world with
    one agent is returned as it is.
    """
    if world.rows == 1:
        return history
    count = len(history.problems)
    parts = [_rows_of(history, agent, count) for agent in range(world.rows)]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def _rows_of(history: History, agent: int, count: int) -> History:
    own = history.alive & (history.events.facts["agent"] == agent)
    before = jnp.pad(history.turn_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = own & (history.turn_ids != before)
    number = jnp.cumsum(starts, axis=1, dtype=jnp.int32) - 1
    facts = {
        **history.judgment.facts,
        "agents": jnp.full(count, agent, jnp.int32),
        "parents": jnp.arange(count, dtype=jnp.int32),
    }
    return history._replace(
        alive=own,
        turn_ids=jnp.where(own, number, -1),
        judgment=history.judgment._replace(facts=facts),
    )
