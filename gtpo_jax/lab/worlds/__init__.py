"""Worlds, one idea per file: `WORLDS` holds them by name."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.lab.worlds.chain import chain
from gtpo_jax.lab.worlds.world import Event, Judgment, World

WORLDS: dict[str, Callable[..., World]] = {"chain": chain}
"""Name → function of options that makes a world."""

__all__ = ["WORLDS", "Event", "Judgment", "World", "chain"]
