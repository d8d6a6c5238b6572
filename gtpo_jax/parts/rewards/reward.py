"""A reward: one named part of the reward of turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


class Reward(NamedTuple):
    """`apply(episodes) → rewards of turns [M, K]`, pure and jit-able."""

    apply: Callable[[EpisodeBatch], jax.Array]
    facts: tuple[Fact, ...] = ()  # facts of trajectories that it reads


class Rewards(NamedTuple):
    """The rewards of a batch, and the named parts that add up to them."""

    total: jax.Array  # [M, K] float32
    parts: dict[str, jax.Array]  # name → [M, K]


def evaluate(rewards: Mapping[str, Reward], episodes: EpisodeBatch) -> Rewards:
    """`r[m, k] = Σ_name r_name[m, k]`, 0 outside the turns of a trajectory."""
    mask = episodes.turn_mask
    parts = {
        name: jnp.where(mask, as_float(reward.apply(episodes)), 0.0)
        for name, reward in rewards.items()
    }
    if not parts:
        raise ValueError("a method needs at least one reward, got none; `rewards.outcome()` is one")
    return Rewards(functools.reduce(jnp.add, parts.values()), parts)
