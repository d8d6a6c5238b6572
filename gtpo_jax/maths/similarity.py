"""Similarity of the code of two trajectories."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking


def hashed_ngrams(
    symbols: Int[Array, "M C"],
    lengths: Int[Array, " M"],
    *,
    sizes: tuple[int, ...] = (2, 3),
    dimensions: int = 512,
) -> Float[Array, "M {dimensions}"]:
    """Counts of hashed n-grams of a symbol sequence (bytes or token ids), as unit vectors.

    Deterministic and weight-free, so no embedding service is needed. A sequence without n-grams is
    the zero vector. This is a deviation: the paper embeds with Amazon Titan Text Embeddings V2.
    """
    rows, length = symbols.shape
    symbols, lengths = masking.everywhere(symbols), masking.everywhere(lengths)
    words = symbols.astype(jnp.uint32)
    counts = jnp.zeros((rows, dimensions), jnp.float32)
    row_index = jnp.arange(rows)[:, None]
    for size in sizes:
        starts = length - size + 1
        if starts < 1:
            continue
        # FNV-1a over the n symbols; n is mixed in so that sizes hash to different buckets.
        code = jnp.full((rows, starts), 2166136261 ^ size, jnp.uint32)
        for offset in range(size):
            code = (code ^ words[:, offset : offset + starts]) * jnp.uint32(16777619)
        code = code ^ (code >> 15)
        bucket = (code % jnp.uint32(dimensions)).astype(jnp.int32)
        present = jnp.arange(starts) + size <= lengths[:, None]
        counts = counts.at[row_index, bucket].add(present.astype(jnp.float32))
    norm = jnp.sqrt(jnp.sum(jnp.square(counts), axis=1, keepdims=True))
    return counts / jnp.maximum(norm, 1.0)


def mean_pooled(
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    *,
    trajectories: int,
) -> Float[Array, "{trajectories} D"]:
    """Mean hidden state over the tokens of each trajectory where `mask` is True, such as its code.

    A trajectory without such tokens is the zero vector, with similarity 0 to all others. The result
    carries no gradient.
    """
    checks.check_same_shape(trajectory_ids=trajectory_ids, mask=mask)
    checks.check_masks(mask=mask)
    kept = masking.everywhere(mask & (trajectory_ids >= 0))
    index = masking.everywhere(jnp.maximum(trajectory_ids, 0))
    states = masking.everywhere(hidden.astype(jnp.float32))
    states = jnp.where(kept[..., None], states, 0.0)
    total = jnp.zeros((trajectories, hidden.shape[-1]), jnp.float32).at[index].add(states)
    count = jnp.zeros(trajectories, jnp.float32).at[index].add(kept.astype(jnp.float32))
    return jax.lax.stop_gradient(total / jnp.maximum(count, 1.0)[:, None])


def cosine_similarity(embeddings: Float[Array, "M D"]) -> Float[Array, "M M"]:
    """`S[i, j] = e_i · e_j / (|e_i| |e_j|)`; 0 where either vector is zero."""
    embeddings = embeddings.astype(jnp.float32)
    norm = jnp.sqrt(jnp.sum(jnp.square(embeddings), axis=1, keepdims=True))
    unit = jnp.where(norm > 0, embeddings / jnp.where(norm > 0, norm, 1.0), 0.0)
    others = masking.everywhere(unit)
    return jnp.einsum("id,jd->ij", unit, others, precision=jax.lax.Precision.HIGHEST)
