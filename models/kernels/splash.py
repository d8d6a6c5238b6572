"""JAX's splash attention for TPU. An import of this module loads Pallas, which takes its time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)

from models.kernels.masks import Prefixes, causal_masks

LANES = 128
"""Splash attention works on tiles of a multiple of this many tokens."""


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    prefixes: Prefixes | None = None,
    *,
    scale: float,
    window: int | None,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention. Shapes as in `fused`; with `interpret` it runs anywhere, slowly.

    With prefixes it gets the mask of one row after another, `[T, T]`; it skips the tiles of a mask
    in which no token sees another.
    """
    length = q.shape[1]
    # Whole tiles: the keys that fill the last one come after every query that is kept.
    whole = -(-length // LANES) * LANES
    tail = [(0, 0), (0, 0), (0, whole - length), (0, 0)]
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)
    q, k, v = (jnp.pad(x, tail) for x in (q, k, v))
    if segment_ids is not None:
        segment_ids, prefixes = jax.tree.map(
            lambda x: jnp.pad(x, [(0, 0), (0, whole - length)], mode="edge"),
            (segment_ids, prefixes),
        )
    make = _maker(whole, softcap=softcap, interpret=interpret)
    if segment_ids is not None and prefixes is not None:
        mask = causal_masks(segment_ids, segment_ids, prefixes, window=window)[1]
        out = _row_by_row(make, mask, q, k, v)
    else:
        window = None if window is None or window >= length else window
        out = _all_rows(make, window, q, k, v, segment_ids)
    return out[:, :, :length].swapaxes(1, 2).astype(v.dtype)


def _maker(length: int, *, softcap: float | None, interpret: bool) -> Callable:
    """Makes a kernel for rows of `length`, a multiple of `LANES`, from the mask of its heads."""
    block = max(size for size in (LANES, 2 * LANES, 4 * LANES) if length % size == 0)
    return functools.partial(
        splash_attention_kernel.make_splash_mha,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )


def _row_by_row(
    make: Callable, masks: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array
) -> jax.Array:
    """A kernel for each row, with its own mask: `q [B, Q, T, H]`, `masks [B, T, T]`."""
    # Of one head: a mask for each head would fill the memory.
    kernels = jax.vmap(make)(masks[:, None])

    def row(args: tuple) -> jax.Array:
        kernel, q, k, v = args
        # JAX makes an array of this flag, and branches on it.
        kernel.fwd_mask_info = kernel.fwd_mask_info._replace(is_dynamic_mask=True)

        def head(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return kernel(q[None], k[None], v[None])[0]

        grouped = q.reshape(len(k), -1, *q.shape[1:])
        out = jax.vmap(jax.vmap(head, (0, None, None)))(grouped, k, v)
        return out.reshape(q.shape)

    return jax.lax.map(row, (kernels, q, k, v))


def _all_rows(
    make: Callable,
    window: int | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
) -> jax.Array:
    """One kernel for all rows, whose mask follows from the window: `q [B, Q, T, H]`."""
    heads, length = q.shape[1], q.shape[2]
    ids = None
    if segment_ids is not None:
        ids = splash_attention_kernel.SegmentIds(q=segment_ids, kv=segment_ids)
    if window is None:
        mask = splash_attention_mask.CausalMask((length, length))
    else:
        mask = splash_attention_mask.LocalMask((length, length), (window - 1, 0), offset=0)
    kernel = make(splash_attention_mask.MultiHeadMask([mask] * heads))
    return cast(jax.Array, jax.vmap(kernel)(q, k, v, ids))
