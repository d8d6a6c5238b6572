"""Causal attention with grouped queries: one definition, `plain`, and kernels that equal it.

`plain` runs everywhere and with any mask; passes with a cache use it always. The kernels serve
passes without a cache, where token t sees token s when s ≤ t, both belong to the same segment, and
t − s < `window` in a local layer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from gtpo_jax import sharding
from models.config import ModelConfig

Masks = tuple[jax.Array, jax.Array]  # of global layers and of local ones: bool [B, T, S]
Kernel = Literal["plain", "cudnn", "splash"]

MASKED = -1e30
LANES = 128  # splash attention works on tiles of so many tokens


def causal_masks(tokens: jax.Array, segment_ids: jax.Array | None, *, window: int | None) -> Masks:
    """`[B, T, T]`: token t sees token s when s ≤ t and both belong to the same segment; in local
    layers moreover t − s < `window`.
    """
    index = jnp.arange(tokens.shape[1])
    mask = jnp.broadcast_to(index[:, None] >= index, (tokens.shape[0], len(index), len(index)))
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    if window is None:
        return mask, mask
    return mask, mask & (index[:, None] - index < window)


def cache_masks(positions: jax.Array, slots: int, *, window: int | None) -> Masks:
    """`[B, T, S]`: the token at position p sees the slots up to p, in local layers the last
    `window` of these.
    """
    slot, last = jnp.arange(slots), positions[:, :, None]
    mask = slot <= last
    return mask, mask if window is None else mask & (slot > last - window)


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


def fused(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    scale: float,
    window: int | None,
    implementation: Literal["xla", "cudnn"],
) -> jax.Array:
    """`jax.nn.dot_product_attention`. Shapes as in `plain`, with S = T; `segment_ids [B, T]`."""
    length, mask, local = q.shape[1], None, None
    if segment_ids is not None:
        # cuDNN wants the mask at its full shape, and has no window beside one.
        mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        if window is not None:
            index = jnp.arange(length)
            mask &= index[:, None] - index < window
    elif window is not None and window < length:
        local = (window - 1, 0)
    return jax.nn.dot_product_attention(
        q,
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        mask=mask,
        scale=scale,
        is_causal=True,
        local_window_size=local,
        implementation=implementation,
    )


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    scale: float,
    window: int | None,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """JAX's splash attention for TPU. Shapes as in `fused`; with `interpret` it runs anywhere,
    slowly.
    """
    # Imported where it is used: Pallas takes its time.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    length, heads = q.shape[1], q.shape[2]
    # Whole tiles: the keys that fill the last one come after every query that is kept.
    whole = -(-length // LANES) * LANES
    block = max(size for size in (LANES, 2 * LANES, 4 * LANES) if whole % size == 0)
    tail = [(0, 0), (0, 0), (0, whole - length), (0, 0)]
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)
    q, k, v = (jnp.pad(x, tail) for x in (q, k, v))
    ids = None
    if segment_ids is not None:
        segment_ids = jnp.pad(segment_ids, [(0, 0), (0, whole - length)], mode="edge")
        ids = splash_attention_kernel.SegmentIds(q=segment_ids, kv=segment_ids)
    if window is None or window >= length:
        mask = splash_attention_mask.CausalMask((whole, whole))
    else:
        mask = splash_attention_mask.LocalMask((whole, whole), (window - 1, 0), offset=0)
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
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
    out = cast(jax.Array, jax.vmap(kernel)(q, k, v, ids))
    return out[:, :, :length].swapaxes(1, 2).astype(v.dtype)


def obstacle(
    config: ModelConfig, kernel: Kernel, *, length: int, mesh: Mesh | None = None
) -> str | None:
    """Why a kernel cannot serve passes over rows of `length` tokens; None: it can."""
    backend = jax.default_backend()
    if kernel == "cudnn":
        if backend != "gpu":
            return f"cuDNN runs on GPU, and this is {backend}"
        if config.compute_dtype not in ("bfloat16", "float16"):
            return f"cuDNN computes in bfloat16 or float16, not in {config.compute_dtype}"
        if config.attention_softcap is not None:
            return f"cuDNN has no soft cap, and attention_softcap is {config.attention_softcap}"
        capability = getattr(jax.local_devices()[0], "compute_capability", "none")
        if not re.fullmatch(r"\d+\.\d+", capability) or float(capability) < 8.0:
            return f"cuDNN needs an NVIDIA GPU of capability 8.0, and this one's is {capability}"
        widest = 256 if float(capability) >= 9.0 else 128
        if config.head_dim % 8 or config.head_dim > widest:
            return f"cuDNN takes multiples of 8 up to {widest}, and head_dim is {config.head_dim}"
        if length % 2:
            return f"cuDNN trains on rows of an even length only, and these have {length} tokens"
    if kernel == "splash":
        if backend == "gpu":
            return "splash attention runs on TPU (and interpreted on CPU), and this is gpu"
        if config.head_dim % 64:
            return f"splash attention takes multiples of 64, and head_dim is {config.head_dim}"
        if backend == "tpu" and mesh is None and jax.device_count() > 1:
            return "several TPUs share a kernel by their mesh, and `forward_fn` was given none"
    return None


def choose(config: ModelConfig, *, length: int, mesh: Mesh | None = None) -> Kernel:
    """The kernel that the config names, or the best one of this platform for `auto`.

    Raises ValueError if the one named cannot do it.
    """
    blocked = functools.partial(obstacle, config, length=length, mesh=mesh)
    name = config.attention
    if name == "auto":
        best: dict[str, Kernel] = {"gpu": "cudnn", "tpu": "splash"}
        name = best.get(jax.default_backend(), "plain")
        return name if blocked(name) is None else "plain"
    reason = blocked(name)
    if reason is not None:
        raise ValueError(f"attention={name!r} cannot be used: {reason}; 'auto' picks one that can")
    return name


def causal(
    config: ModelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    local: bool | jax.Array,
    *,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The chosen kernel, for a layer that is local or not; `local` may be traced.

    `q [B, T, Q, H]`, `k, v [B, KV, T, H]` → `[B, T, Q, H]`. Over a `mesh`, each device runs it on
    its own rows and, where they can be shared evenly, key heads.
    """
    kv_heads, packed = k.shape[1], segment_ids is not None
    if choose(config, length=q.shape[1], mesh=mesh) == "cudnn":
        run = functools.partial(fused, implementation="cudnn")
    else:
        interpret = jax.default_backend() != "tpu"
        run = functools.partial(splash, softcap=config.attention_softcap, interpret=interpret)

    def of_window(window: int | None) -> Callable[..., jax.Array]:
        own = functools.partial(run, scale=config.score_scale, window=window)
        if mesh is None:
            return own
        heads = "tensor" if kv_heads % mesh.shape["tensor"] == 0 else None
        rows = PartitionSpec(sharding.ROW_AXES)
        of_queries = PartitionSpec(sharding.ROW_AXES, None, heads)
        of_keys = PartitionSpec(sharding.ROW_AXES, heads)
        return jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(of_queries, of_keys, of_keys, rows if packed else None),
            out_specs=of_queries,
            check_vma=False,
        )

    # A kernel is compiled for its window, so layers of two kinds are two programs.
    if isinstance(local, bool):
        return of_window(config.window if local else None)(q, k, v, segment_ids)
    return jax.lax.cond(local, of_window(config.window), of_window(None), q, k, v, segment_ids)
