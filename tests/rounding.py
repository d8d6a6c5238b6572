"""Bounds on the difference of float32 results that differ only in the order of their sums.

Of n operations behind each other each rounds by at most u = ε/2, relative to what it gives, and the
errors are as good as independent: their sum stays below λ √n u (Higham and Mary, "A new approach to
probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019). Two results, or one and a
reference in float64, are then less than λ √n ε apart, relative to the largest of what is summed.
That holds for the vectors of every processor and for fused multiplications and additions.
"""

from __future__ import annotations

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig

SPREAD = 4.0
"""λ: errors that are uniform within ±u sum up to that once in 10²² results."""


@functools.cache
def converts_float16() -> bool:
    """False on a processor without F16C: XLA then lacks what converts to float16 and back."""
    try:
        jax.jit(lambda x: x.astype(jnp.float16))(jnp.ones(8)).block_until_ready()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def tolerance(depth: int, scale: float) -> float:
    """Tolerance for sums of terms of size `scale`, in which a value passes `depth` additions."""
    return SPREAD * math.sqrt(depth) * float(np.finfo(np.float32).eps) * scale


def assert_same_sums(found, expected, *, depth: int) -> None:
    """Two trees are equal but for rounding. The scale is the largest entry of `expected`."""
    found, expected = jax.device_get((found, expected))
    chex.assert_trees_all_equal_shapes(found, expected)
    bound = tolerance(depth, max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected)))
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=bound, rtol=0),
        found,
        expected,
    )


def decoder_depth(config: ModelConfig, tokens: int) -> int:
    """Additions on the way from an embedding to a logit of a row of that many tokens."""
    heads = config.query_heads * config.head_dim
    attention = 2 * config.width + config.head_dim + 2 * tokens + heads
    mlp = 2 * config.width + config.mlp_width * max(1, config.experts_per_token)
    norms = 2 * config.head_dim * config.qk_norm + 2 * config.width * config.post_norms
    return config.layers * (attention + mlp + norms) + 2 * config.width
