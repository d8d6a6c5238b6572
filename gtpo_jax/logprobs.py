"""Token log-probabilities and entropies, token-aligned. The only place that shifts by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_logprobs(
    logits: Float[Array, "B T V"], tokens: Int[Array, "B T"], *, temperature: float = 1.0
) -> Float[Array, "B T"]:
    """`out[b, t] = log softmax(logits[b, t−1] / temperature)[tokens[b, t]]`, float32;
    `out[:, 0]` is 0.

    Logits at t−1 predict token t. Use the temperature of the sampler, or the ratio to its log-probs
    is not one on the first step.
    """
    scaled = logits[:, :-1].astype(jnp.float32) / temperature
    chosen = jnp.take_along_axis(scaled, tokens[:, 1:, None], axis=-1)[..., 0]
    return _align(chosen - jax.nn.logsumexp(scaled, axis=-1))


def token_entropies(
    logits: Float[Array, "B T V"], *, temperature: float = 1.0
) -> Float[Array, "B T"]:
    """Entropy in nats of the distribution that token t was drawn from; `out[:, 0]` is 0."""
    log_p = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32) / temperature, axis=-1)
    # −inf marks tokens that cannot be drawn: 0 · log 0 is 0, in the gradient as well.
    safe = jnp.where(jnp.isneginf(log_p), 0.0, log_p)
    return _align(-jnp.sum(jnp.exp(log_p) * safe, axis=-1))


def _align(predicted: jax.Array) -> jax.Array:
    return jnp.pad(predicted, ((0, 0), (1, 0)))
