"""Worlds, one idea per file: `WORLDS` holds them by name."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.lab.worlds.chain import chain
from gtpo_jax.lab.worlds.lengths import lengths
from gtpo_jax.lab.worlds.noisy import failing, noisy
from gtpo_jax.lab.worlds.recurring import recurring
from gtpo_jax.lab.worlds.stopping import stopping
from gtpo_jax.lab.worlds.verification import verification
from gtpo_jax.lab.worlds.world import Event, Judgment, World

WORLDS: dict[str, Callable[..., World]] = {
    "chain": chain,
    "failing": failing,
    "lengths": lengths,
    "noisy": noisy,
    "recurring": recurring,
    "stopping": stopping,
    "verification": verification,
}
"""Name → function of options that makes a world."""

__all__ = ["WORLDS", "Event", "Judgment", "World", *sorted(WORLDS)]
