"""Worlds, one idea per file: `WORLDS` holds them by name."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.lab.worlds.agents import agents
from gtpo_jax.lab.worlds.chain import chain
from gtpo_jax.lab.worlds.decisions import fatal, irrelevant
from gtpo_jax.lab.worlds.difficulty import difficulty, many
from gtpo_jax.lab.worlds.entities import entities
from gtpo_jax.lab.worlds.lengths import lengths
from gtpo_jax.lab.worlds.noisy import failing, noisy
from gtpo_jax.lab.worlds.plans import plans
from gtpo_jax.lab.worlds.recoverable import recoverable
from gtpo_jax.lab.worlds.recurring import recurring
from gtpo_jax.lab.worlds.resembling import misleading, resembling
from gtpo_jax.lab.worlds.stopping import stopping
from gtpo_jax.lab.worlds.styles import styles
from gtpo_jax.lab.worlds.verification import verification
from gtpo_jax.lab.worlds.world import Event, Judgment, World

WORLDS: dict[str, Callable[..., World]] = {
    "agents": agents,
    "chain": chain,
    "difficulty": difficulty,
    "entities": entities,
    "failing": failing,
    "fatal": fatal,
    "irrelevant": irrelevant,
    "lengths": lengths,
    "many": many,
    "misleading": misleading,
    "noisy": noisy,
    "plans": plans,
    "recoverable": recoverable,
    "recurring": recurring,
    "resembling": resembling,
    "stopping": stopping,
    "styles": styles,
    "verification": verification,
}
"""Name → function of options that makes a world."""

__all__ = ["WORLDS", "Event", "Judgment", "World", *sorted(WORLDS)]
