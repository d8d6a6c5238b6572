"""Draws without a random key: hashes of what is drawn for.

A choice by hash depends neither on the order of rows nor on their division among batches, and is
the same after a restart.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped, UInt32

from gtpo_jax.types import Scalar

GOLDEN = 0x9E3779B9  # 2³² over the golden ratio: spreads small numbers over all bits


def mixed(state: UInt32[Array, "*B"], value: Shaped[Array, "*B"]) -> UInt32[Array, "*B"]:
    """The hash of 32 bits of a state and an integer; broadcasts. Equal inputs have equal hashes."""
    hashed = jnp.asarray(state).astype(jnp.uint32) * jnp.uint32(0x01000193)
    hashed = hashed ^ (jnp.asarray(value).astype(jnp.uint32) * jnp.uint32(GOLDEN))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finalizer of MurmurHash3
        hashed = (hashed ^ (hashed >> shift)) * jnp.uint32(factor)
    return hashed ^ (hashed >> 16)


def of_numbers(values: Float[Array, "*B"], *, salt: Scalar = 0) -> UInt32[Array, "*B"]:
    """A hash of the bits of float32 numbers, which look uniform and independent."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(values, jnp.float32), jnp.uint32)
    return mixed(bits, jnp.asarray(salt))


def of_rows(values: Float[Array, "M K"], mask: Bool[Array, "M K"]) -> UInt32[Array, " M"]:
    """A hash of the numbers of each row within `mask`."""
    hashes = jnp.where(mask, of_numbers(values), 0)
    state = jnp.zeros(len(values), jnp.uint32)
    for column in range(values.shape[1]):
        state = mixed(state, hashes[:, column])
    return state
