"""The evidence lower bound of a masked-diffusion model, by quadrature over the noise level."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quadrature:
    """Gauss quadrature with `nodes` noise levels, and `masks` random masks at each of them."""

    nodes: int = 2
    masks: int = 1

    def __post_init__(self):
        checks.check_range("nodes", self.nodes, 1, float("inf"), hint="2 is usual")
        checks.check_range("masks", self.masks, 1, float("inf"), hint="1 is usual")

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """The nodes t_n and weights w_n of Gauss and Legendre on (0, 1), ascending, float64.

        Two nodes are .2113 and .7887, with weights .5.
        """
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)
        return (nodes + 1) / 2, weights / 2


def elbo_parts(
    logprobs: Float[Array, "N K *B"], masked: Bool[Array, "N K *B"], quadrature: Quadrature
) -> Float[Array, "*B"]:
    """The parts of the bound that belong to each token; their sum over a sequence is its bound.

    `out_i = Σ_n w_n (1 / K) Σ_k (1 / t_n) 1[masked_nki] log π(y_i | y masked by nk)`

    `masked[n, k]` hides every token of the response with probability t_n; `logprobs[n, k]` are the
    log-probs of the hidden tokens given the others, and count only where `masked`. The expectation
    of the sum over masks is below `log π(y)` (arXiv 2510.08554, semi-deterministic Monte Carlo).
    """
    checks.check_same_shape(logprobs=logprobs, masked=masked)
    expected = (quadrature.nodes, quadrature.masks)
    if jnp.shape(logprobs)[:2] != expected:
        raise ValueError(
            f"logprobs must begin with [nodes, masks] = {expected}, got {jnp.shape(logprobs)}"
        )
    return jnp.sum(
        jnp.where(masked, as_float(logprobs) * _shares(logprobs, quadrature), 0.0), (0, 1)
    )


def _shares(values: jax.Array, quadrature: Quadrature) -> jax.Array:
    """`w_n / (K t_n)`, shaped to multiply values `[N, K, ...]`."""
    nodes, weights = quadrature.levels()
    shares = jnp.asarray(weights / (quadrature.masks * nodes), as_float(values).dtype)
    return shares.reshape(-1, *(1,) * (values.ndim - 1))
