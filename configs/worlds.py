"""Worlds and policies of the laboratory by name: `chain needed=3 turns=8`, `recurrent width=8`."""

from __future__ import annotations

from collections.abc import Sequence

from configs.methods import make_named
from gtpo_jax.lab.policies import POLICIES, Policy
from gtpo_jax.lab.worlds import WORLDS, World


def make_world(words: Sequence[str]) -> World:
    """The world that words on a command line stand for; `ValueError`, with one line, if none."""
    world = make_named(words, WORLDS, "world")
    if not isinstance(world, World):
        raise ValueError(f"{words[0]} must return a World, got {type(world).__name__}")
    return world


def make_policy(words: Sequence[str]) -> Policy:
    """The policy that words stand for; `ValueError`, with one line, if none."""
    return make_named(words, POLICIES, "policy")
