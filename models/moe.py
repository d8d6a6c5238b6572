"""Routed experts: every token goes through the MLPs that its router scores highest.

Experts have no capacity limit, so no token is dropped, and a token does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import layers
from models.config import ModelConfig


def route(logits: jax.Array, *, per_token: int, normalize: bool) -> tuple[jax.Array, jax.Array]:
    """The `per_token` likeliest experts of each token, and their weights.

    `logits [N, E]` → weights float32 `[N, k]`, which are `softmax(logits)` at the chosen experts,
    with `normalize` divided by their sum; experts int32 `[N, k]`.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    weights, chosen = jax.lax.top_k(probabilities, per_token)
    if normalize:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, chosen


def dispatch(
    x: jax.Array,
    weights: jax.Array,
    chosen: jax.Array,
    mlp: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    experts: int,
) -> jax.Array:
    """`y[n] = Σ_j weights[n, j] · mlp_e(x[n])` with `e = chosen[n, j]`, for `x [N, D]`.

    `mlp(rows, sizes)` gets the rows sorted by expert, and the number of rows of each expert.
    """
    count, per_token = chosen.shape
    flat = chosen.reshape(-1)
    order = jnp.argsort(flat)
    sizes = jnp.bincount(flat, length=experts)
    out = mlp(x[order // per_token], sizes)
    back = jnp.argsort(order)
    out = out[back].reshape(count, per_token, -1)
    return jnp.einsum("nk,nkd->nd", weights, out.astype(jnp.float32)).astype(x.dtype)


class Experts(nn.Module):
    """The router and the gated MLPs of its experts: `[B, T, D]` → `[B, T, D]`."""

    config: ModelConfig
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dtype, param_dtype = jnp.dtype(c.compute_dtype), jnp.dtype(c.param_dtype)

        def kernel(
            name: str, shape: tuple[int, ...], axes: tuple[str, ...], scale: float = 1.0
        ) -> jax.Array:
            fan = layers.matrix_init(scale, stacked=len(shape) - 2)
            return layers.Kernel(fan, axes, shape, param_dtype, name=name)().astype(dtype)

        inner, outer = (c.experts, c.width, c.mlp_width), (c.experts, c.mlp_width, c.width)
        router = kernel("router", (c.width, c.experts), ("embed", "experts"))
        gate = kernel("gate_proj", inner, ("experts", "embed", "expert_mlp"))
        up = kernel("up_proj", inner, ("experts", "embed", "expert_mlp"))
        down = kernel("down_proj", outer, ("experts", "expert_mlp", "embed"), c.residual_init)

        def mlp(rows: jax.Array, sizes: jax.Array) -> jax.Array:
            h = self.activation(jax.lax.ragged_dot(rows, gate, sizes))
            h = h * jax.lax.ragged_dot(rows, up, sizes)
            return jax.lax.ragged_dot(h, down, sizes)

        rows = x.reshape(-1, c.width)
        logits = jnp.dot(rows, router, preferred_element_type=jnp.float32)
        weights, chosen = route(logits, per_token=c.experts_per_token, normalize=c.normalize_router)
        return dispatch(rows, weights, chosen, mlp, experts=c.experts).reshape(x.shape)
