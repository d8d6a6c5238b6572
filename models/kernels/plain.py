"""The definition of attention in einsum and softmax, whole or a block of queries at a time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

MASKED = -1e30

LONG = 256
"""Length of a row from which on `in_blocks` pays off."""


def plain(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """`softmax(cap(scale · q kᵀ)) v` over the keys of the mask, `cap(x) = softcap · tanh(x /
    softcap)`; the softmax is float32.

    `q [B, T, Q, H]`, `k, v [B, KV, S, H]`, `mask [B, T, S]` → `[B, T, Q, H]`.
    """
    batch, length, query_heads, head_dim = q.shape
    kv_heads = k.shape[1]
    group = query_heads // kv_heads
    # The queries of a key head are rows of one matrix: with a single new token there are few.
    q = q.reshape(batch, length, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, group * length, head_dim)
    scores = jnp.einsum("bkmh,bksh->bkms", q, k, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    visible = jnp.tile(mask, (1, group, 1))[:, None]
    weights = jax.nn.softmax(jnp.where(visible, scores, MASKED), axis=-1).astype(v.dtype)
    out = jnp.einsum("bkms,bksh->bkmh", weights, v)
    out = out.reshape(batch, kv_heads, group, length, head_dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, length, query_heads, head_dim)


def in_blocks(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
    block: int | None = None,
) -> jax.Array:
    """`plain` for long rows in which no token sees a later one.

    It takes `block` queries at a time, with the keys up to the last of them. The default block is
    an eighth of the row, or 128 if that is more. The backward pass recomputes scores, so memory
    holds the scores of one block at most.
    """
    block = block or max(128, -(-q.shape[1] // 8))
    run = jax.checkpoint(functools.partial(plain, scale=scale, softcap=softcap))
    ends = [min(start + block, q.shape[1]) for start in range(0, q.shape[1], block)]
    parts = [
        run(q[:, start:end], k[:, :, :end], v[:, :, :end], mask[:, start:end, :end])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return jnp.concatenate(parts, axis=1)
