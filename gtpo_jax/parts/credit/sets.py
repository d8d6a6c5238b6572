"""Sets of turns over which statistics are taken.

Normalizations differ only in their set: on the same data two sets can give advantages of different
signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import masking


class Moments(NamedTuple):
    """Statistics of the set of each turn, `[M, 1]` or `[M, K]`."""

    count: jax.Array
    mean: jax.Array
    std: jax.Array
    largest: jax.Array  # largest magnitude, the scale against which `std` may vanish


Set = Callable[[jax.Array, jax.Array, jax.Array, int], Moments]
"""`(values [M, K], mask [M, K], group_ids [M], ddof) → Moments`: one of those below, or your own.
Turns outside `mask` do not count."""


def group(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
    """Every turn of every row of the group, so a row with more turns weighs more."""
    moments = masking.group_moments(values, mask, group_ids, ddof=ddof)
    return Moments(*(x[:, None] for x in moments))


def turn_index(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
    """Turn k of every row of the group."""

    def column(x: jax.Array, kept: jax.Array) -> masking.GroupMoments:
        return masking.group_moments(x[:, None], kept[:, None], group_ids, ddof=ddof)

    return Moments(*jax.vmap(column, in_axes=1, out_axes=1)(values, mask))


def first_turn(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
    """The first turn of every row of the group: one value per trajectory."""
    return group(values[:, :1], mask[:, :1], group_ids, ddof)


def batch(values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int) -> Moments:
    """Every turn of the whole batch."""
    return group(values, mask, jnp.zeros_like(group_ids), ddof)


def batch_first_turn(
    values: jax.Array, mask: jax.Array, group_ids: jax.Array, ddof: int
) -> Moments:
    """The first turn of every row of the whole batch: one value per trajectory."""
    return first_turn(values, mask, jnp.zeros_like(group_ids), ddof)


SETS: dict[str, Set] = {
    "group": group,
    "turn_index": turn_index,
    "first_turn": first_turn,
    "batch": batch,
    "batch_first_turn": batch_first_turn,
}
"""The sets by name."""
