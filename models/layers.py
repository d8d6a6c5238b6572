"""The small modules of a layer. Every parameter names the logical axes of its shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]


def param(
    module: nn.Module,
    name: str,
    initializer: Initializer,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Declares a parameter of a module, with the logical names of its axes."""
    boxed = nn.with_logical_partitioning(initializer, axes)
    return cast(jax.Array, module.param(name, boxed, shape, dtype))  # linen takes it out of its box


class RMSNorm(nn.Module):
    """`x / √(mean x² + eps)` times its parameter, or times 1 + that with `zero_centered`."""

    eps: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    zero_centered: bool
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        initializer = nn.initializers.zeros if self.zero_centered else nn.initializers.ones
        scale = param(self, "scale", initializer, (self.axis,), x.shape[-1:], self.param_dtype)
        scale = scale.astype(jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return (x * (1.0 + scale if self.zero_centered else scale)).astype(self.dtype)


class Kernel(nn.Module):
    """A parameter by the name `kernel`, for products that `nn.Dense` does not know."""

    initializer: Initializer
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> jax.Array:
        return param(self, "kernel", self.initializer, self.axes, self.shape, self.dtype)
