"""Causal attention with grouped queries: one definition, `plain`, and kernels that equal it.

`plain` runs everywhere and with any mask; passes with a cache use it always. The kernels serve
passes without a cache, where token t sees token s when s ≤ t, s belongs to the segment of t or to
the prefix of that segment, and, in a local layer, `position t − position s < window`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from gtpo_jax.devices import sharding
from models.config import ModelConfig

Masks = tuple[jax.Array, jax.Array]  # of global layers and of local ones: bool [B, T, S]
Kernel = Literal["plain", "cudnn", "splash"]

MASKED = -1e30
LANES = 128  # splash attention works on tiles of so many tokens


class Prefixes(NamedTuple):
    """Segments that tokens see besides their own; they come before it in the row."""

    ids: jax.Array  # [B, T], the same for all tokens of a segment; 0: none
    positions: jax.Array  # [B, T], those of a segment go on from its prefix


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


def together(segment_ids: jax.Array, prefixes: Prefixes | None) -> jax.Array:
    """`[B, T, T]`: s belongs to the segment of t or to the prefix of that segment."""
    of_key = segment_ids[:, None, :]
    same = segment_ids[:, :, None] == of_key
    if prefixes is None:
        return same
    of_prefix = prefixes.ids[:, :, None]
    return same | ((of_prefix == of_key) & (of_prefix > 0))


def distances(length: int, prefixes: Prefixes | None) -> jax.Array:
    """How many tokens of its document t comes behind s, if both are of one: `[T, T]`, with prefixes
    `[B, T, T]`. Behind a prefix of its own, a segment has its distances in the row.
    """
    if prefixes is None:
        index = jnp.arange(length)
        return index[:, None] - index
    return prefixes.positions[:, :, None] - prefixes.positions[:, None, :]


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


LONG = 256
"""Positions of a row from which on `in_blocks` is worth it."""


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
    """`plain` where no token sees a later one, for long rows: `block` queries at a time, an eighth
    of them or 128 without it, and the keys up to the last of them. Scores are made again in the
    backward pass: there are never more than those of one block in memory.
    """
    block = block or max(128, -(-q.shape[1] // 8))
    run = jax.checkpoint(functools.partial(plain, scale=scale, softcap=softcap))
    ends = [min(start + block, q.shape[1]) for start in range(0, q.shape[1], block)]
    parts = [
        run(q[:, start:end], k[:, :, :end], v[:, :, :end], mask[:, start:end, :end])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return jnp.concatenate(parts, axis=1)


def fused(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    prefixes: Prefixes | None = None,
    *,
    scale: float,
    window: int | None,
    implementation: Literal["xla", "cudnn"],
) -> jax.Array:
    """`jax.nn.dot_product_attention`. Shapes as in `plain`, with S = T; `segment_ids [B, T]`."""
    length, mask, local = q.shape[1], None, None
    if segment_ids is not None:
        # cuDNN wants the mask at its full shape, and has no window beside one.
        mask = together(segment_ids, prefixes)
        if window is not None:
            mask &= distances(length, prefixes) < window
        mask = mask[:, None]
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
    prefixes: Prefixes | None = None,
    *,
    scale: float,
    window: int | None,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """JAX's splash attention for TPU. Shapes as in `fused`; with `interpret` it runs anywhere,
    slowly.

    With prefixes it is given the mask of each row in turn, `[T, T]`; tiles without a pair that sees
    each other are left out.
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
    if segment_ids is not None:
        segment_ids, prefixes = jax.tree.map(
            lambda x: jnp.pad(x, [(0, 0), (0, whole - length)], mode="edge"),
            (segment_ids, prefixes),
        )
    make = functools.partial(
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
    if segment_ids is not None and prefixes is not None:
        masks = causal_masks(segment_ids, segment_ids, prefixes, window=window)[1]
        # Of one head: a mask for each would fill the memory.
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

        out = jax.lax.map(row, (kernels, q, k, v))
        return out[:, :, :length].swapaxes(1, 2).astype(v.dtype)
    ids = None
    if segment_ids is not None:
        ids = splash_attention_kernel.SegmentIds(q=segment_ids, kv=segment_ids)
    if window is None or window >= length:
        mask = splash_attention_mask.CausalMask((whole, whole))
    else:
        mask = splash_attention_mask.LocalMask((whole, whole), (window - 1, 0), offset=0)
    kernel = make(splash_attention_mask.MultiHeadMask([mask] * heads))
    out = cast(jax.Array, jax.vmap(kernel)(q, k, v, ids))
    return out[:, :, :length].swapaxes(1, 2).astype(v.dtype)


def obstacle(
    config: ModelConfig, kernel: Kernel, *, length: int, mesh: Mesh | None = None
) -> str | None:
    """Why a kernel cannot serve passes over rows of `length` tokens; None: it can."""
    backend = sharding.platform(mesh)
    if kernel == "cudnn":
        if backend != "gpu":
            return f"cuDNN runs on GPU, and this is {backend}"
        if config.compute_dtype not in ("bfloat16", "float16"):
            return f"cuDNN computes in bfloat16 or float16, not in {config.compute_dtype}"
        if config.attention_softcap is not None:
            return f"cuDNN has no soft cap, and attention_softcap is {config.attention_softcap}"
        device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
        capability = getattr(device, "compute_capability", "none")
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
        name = best.get(sharding.platform(mesh), "plain")
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
    prefixes: Prefixes | None,
    local: bool | jax.Array,
    *,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The chosen kernel, for a layer that is local or not; `local` may be traced.

    `q [B, T, Q, H]`, `k, v [B, KV, T, H]` → `[B, T, Q, H]`. Over a `mesh`, each device runs it on
    its own rows and, where they can be shared evenly, key heads. Positions that are shared along
    `sequence` are exchanged for heads meanwhile (arXiv 2309.14509): each device has all of those.
    """
    kv_heads, packed, continued = k.shape[1], segment_ids is not None, prefixes is not None
    if choose(config, length=q.shape[1], mesh=mesh) == "cudnn":
        run = functools.partial(fused, implementation="cudnn")
    else:
        interpret = sharding.platform(mesh) != "tpu"
        run = functools.partial(splash, softcap=config.attention_softcap, interpret=interpret)

    def of_window(window: int | None) -> Callable[..., jax.Array]:
        own = functools.partial(run, scale=config.score_scale, window=window)
        if mesh is None:
            return own
        shared = (("tensor", "sequence"), ("tensor",), ())
        heads = next(axes for axes in shared if kv_heads % sharding.row_count(mesh, axes) == 0)
        rows = PartitionSpec(sharding.BATCH_AXES)
        of_queries = PartitionSpec(sharding.BATCH_AXES, None, heads)
        of_keys = PartitionSpec(sharding.BATCH_AXES, heads)
        return jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(
                of_queries,
                of_keys,
                of_keys,
                rows if packed else None,
                rows if continued else None,
            ),
            out_specs=of_queries,
            check_vma=False,
        )

    # A kernel is compiled for its window, so layers of two kinds are two programs.
    if isinstance(local, bool):
        return of_window(config.window if local else None)(q, k, v, segment_ids, prefixes)
    kinds = of_window(config.window), of_window(None)
    return jax.lax.cond(local, *kinds, q, k, v, segment_ids, prefixes)
