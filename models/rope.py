"""Rotary positions: the angle of position t in pair i is t · frequency i.

Angles are float32: in bfloat16 positions beyond 256 would no longer be exact integers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.config import ModelConfig, RopeScaling


class Table(NamedTuple):
    """Cosine and sine of the angles: float32 `[B, T, 1, H/2]`."""

    cos: jax.Array
    sin: jax.Array


def frequencies(head_dim: int, *, theta: float, scaling: RopeScaling) -> jax.Array:
    """Radians per position: `theta^(−2i / head_dim)` for pair i, stretched; float32 `[H/2]`.

    - linear: every frequency is divided by the factor (Chen et al., 2023).
    - llama3: a frequency that makes `r` turns in the original context is multiplied by
      `s + (1 − s) / factor`, with `s = (r − low) / (high − low)` clipped to [0, 1].
    - yarn: the same, with `1 − s` linear in the index of the pair between those that make
      `beta_fast` and `beta_slow` turns, rounded outwards (Peng et al., 2023).
    """
    half = head_dim // 2
    plain = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    match scaling.kind:
        case "none":
            return plain
        case "linear":
            return plain / scaling.factor
        case "llama3":
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            turns = scaling.original_positions * plain / (2 * math.pi)
            kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        case "yarn":

            def pair(turns: float) -> float:
                longest = scaling.original_positions / (turns * 2 * math.pi)
                return half * math.log(longest) / math.log(theta)

            first = max(math.floor(pair(scaling.beta_fast)), 0)
            last = min(math.ceil(pair(scaling.beta_slow)), head_dim - 1)
            index = jnp.arange(half, dtype=jnp.float32)
            kept = 1.0 - jnp.clip((index - first) / max(last - first, 1e-3), 0.0, 1.0)
        case unknown:
            raise ValueError(
                f"rope_scaling.kind {unknown!r} is unknown; one of none, linear, llama3, yarn"
            )
    return plain * (kept + (1.0 - kept) / scaling.factor)


def amplitude(scaling: RopeScaling) -> float:
    """Factor of cosine and sine: 1, except for yarn."""
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 1.0 + 0.1 * math.log(max(scaling.factor, 1.0))


def table(positions: jax.Array, *, head_dim: int, theta: float, scaling: RopeScaling) -> Table:
    """Cosines and sines at `positions [B, T]`."""
    rates = frequencies(head_dim, theta=theta, scaling=scaling)
    angles = positions[..., None, None].astype(jnp.float32) * rates
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    scale = amplitude(scaling)
    return Table(cos, sin) if scale == 1.0 else Table(cos * scale, sin * scale)


def tables(config: ModelConfig, positions: jax.Array) -> tuple[Table, Table]:
    """The tables of global layers and of local ones."""
    every = table(
        positions,
        head_dim=config.head_dim,
        theta=config.rope_theta,
        scaling=config.rope_scaling,
    )
    if config.local_rope_theta is None:
        return every, every
    theta = config.local_rope_theta
    return every, table(positions, head_dim=config.head_dim, theta=theta, scaling=RopeScaling())


def rotate(x: jax.Array, table: Table) -> jax.Array:
    """Rotates each pair of `x [B, T, N, H]` by its angle; a pair is one entry of each half of H."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [
        first * table.cos - second * table.sin,
        second * table.cos + first * table.sin,
    ]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
