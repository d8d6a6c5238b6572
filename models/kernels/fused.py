"""JAX's own attention, which runs cuDNN on GPU."""

from __future__ import annotations

from typing import Literal

import jax

from models.kernels.masks import Prefixes, distances, together


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
        # cuDNN wants the mask at its full shape, and takes no window beside a mask.
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
