"""The small modules of a layer. Every parameter names the logical axes of its shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.config import ModelConfig

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
    return cast(jax.Array, module.param(name, boxed, shape, dtype))  # linen unboxes it


def matrix_init(scale: float = 1.0, *, stacked: int = 0) -> Initializer:
    """Random matrices `[..., in, out]` whose outputs are `scale` times as large as their inputs.

    The first `stacked` axes enumerate matrices, which are scaled one by one.
    """
    axes = tuple(range(stacked))
    return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal", batch_axis=axes)


def flat_product(
    x: jax.Array,
    kernel: jax.Array,
    dimension_numbers: jax.lax.DotDimensionNumbers,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: jnp.dtype | None = None,
) -> jax.Array:
    """`x [..., D] W [D, F]`, the leading axes of x merged into one: a `dot_general` for `nn.Dense`.

    XLA on CPU makes a transposed copy of the incoming gradient for each axis that the gradient of W
    sums over; this leaves one such axis.
    """
    ((from_x, from_kernel), batch), last = dimension_numbers, x.ndim - 1
    assert tuple(from_x) == (last,) and tuple(from_kernel) == (0,) and not any(batch)
    out = jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]),
        kernel,
        (((1,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(
    config: ModelConfig,
    name: str,
    features: int,
    axes: tuple[str, str],
    *,
    bias: bool = False,
    product: Callable[..., jax.Array] | None = None,
) -> nn.Dense:
    """A dense matrix of a layer; `product` replaces `jax.lax.dot_general`.

    A matrix starts with outputs as large as its inputs, but for the matrices that write to the
    residual: these start at `residual_init`.
    """
    scale = config.residual_init if axes[1] == "embed" else 1.0
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=jnp.dtype(config.compute_dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=nn.with_logical_partitioning(matrix_init(scale), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        dot_general=product,
        name=name,
    )


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


def norm(config: ModelConfig, *, axis: str = "embed", name: str | None = None) -> RMSNorm:
    """The norm of a model, over the axis of that logical name."""
    return RMSNorm(
        config.norm_eps,
        jnp.dtype(config.compute_dtype),
        jnp.dtype(config.param_dtype),
        config.zero_centered_norms,
        axis,
        name=name,
    )


class Kernel(nn.Module):
    """A parameter named `kernel`, for products that `nn.Dense` cannot express."""

    initializer: Initializer
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> jax.Array:
        return param(self, "kernel", self.initializer, self.axes, self.shape, self.dtype)
