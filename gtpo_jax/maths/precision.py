"""The precision of credit and losses: float32, or float64 for inputs in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def as_float(x: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float32; float64 stays float64, which JAX has only with `jax_enable_x64`.

    Lower precision and integers become float32, so sums over a batch do not lose digits.
    """
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, jnp.promote_types(x.dtype, jnp.float32))
