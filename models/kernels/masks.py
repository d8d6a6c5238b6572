"""Masks of attention: which tokens a token sees."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Masks = tuple[jax.Array, jax.Array]  # of global layers and of local ones: bool [B, T, S]


class Prefixes(NamedTuple):
    """Segments that tokens see besides their own; they come before it in the row."""

    ids: jax.Array  # [B, T], equal for all tokens of a segment; 0: no prefix
    positions: jax.Array  # [B, T], a segment's positions go on from its prefix


def causal_masks(
    tokens: jax.Array,
    segment_ids: jax.Array | None,
    prefixes: Prefixes | None = None,
    *,
    window: int | None,
) -> Masks:
    """`[B, T, T]`: token t sees token s when s ≤ t and s belongs to the segment of t or to its
    prefix; in local layers moreover `position t − position s < window`.
    """
    index = jnp.arange(tokens.shape[1])
    mask = jnp.broadcast_to(index[:, None] >= index, (tokens.shape[0], len(index), len(index)))
    if segment_ids is not None:
        mask &= together(segment_ids, prefixes)
    if window is None:
        return mask, mask
    return mask, mask & (distances(len(index), prefixes) < window)


def two_way_masks(tokens: jax.Array, segment_ids: jax.Array | None) -> Masks:
    """`[B, T, T]`: token t sees all tokens of its segment, those after it too."""
    rows, length = tokens.shape
    if segment_ids is None:
        segment_ids = jnp.ones((rows, length), jnp.int32)
    mask = together(segment_ids, None)
    return mask, mask


def together(segment_ids: jax.Array, prefixes: Prefixes | None) -> jax.Array:
    """`[B, T, T]`: s belongs to the segment of t or to the prefix of that segment."""
    of_key = segment_ids[:, None, :]
    same = segment_ids[:, :, None] == of_key
    if prefixes is None:
        return same
    of_prefix = prefixes.ids[:, :, None]
    return same | ((of_prefix == of_key) & (of_prefix > 0))


def distances(length: int, prefixes: Prefixes | None) -> jax.Array:
    """By how many tokens t follows s within one document: `[T, T]`, with prefixes `[B, T, T]`.

    Without prefixes, positions in the row serve. A segment whose prefix lies elsewhere in the row
    counts from the end of that prefix.
    """
    if prefixes is None:
        index = jnp.arange(length)
        return index[:, None] - index
    return prefixes.positions[:, :, None] - prefixes.positions[:, None, :]


def cache_masks(positions: jax.Array, slots: int, *, window: int | None) -> Masks:
    """`[B, T, S]`: the token at position p sees the cache up to position p, and in local layers
    only the last `window` of these positions.
    """
    slot, last = jnp.arange(slots), positions[:, :, None]
    mask = slot <= last
    return mask, mask if window is None else mask & (slot > last - window)
