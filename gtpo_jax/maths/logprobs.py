"""Token-aligned log-probabilities and entropies. Only this module shifts logits by one position.

`token_logprobs` and `token_entropies` take logits. `chunked_statistics` takes hidden states and the
head, and holds the logits of only a few positions at a time, in the backward pass too: with a
vocabulary of 150,000, full logits would be the largest array of the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.types import Scalar


def token_logprobs(
    logits: Float[Array, "B T V"], tokens: Int[Array, "B T"], *, temperature: Scalar = 1.0
) -> Float[Array, "B T"]:
    """`out[b, t] = log softmax(logits[b, t−1] / temperature)[tokens[b, t]]`; `out[:, 0]` is 0.

    Logits at t−1 predict token t. Use the temperature of the sampler, or the ratio to its log-probs
    is not 1 on the first step. Computed in float32.
    """
    _check(logits, tokens, temperature)
    return _align(_logprobs(logits[:, :-1], tokens[:, 1:], temperature))


def token_entropies(
    logits: Float[Array, "B T V"], *, temperature: Scalar = 1.0
) -> Float[Array, "B T"]:
    """Entropy in nats of the distribution that token t was drawn from; `out[:, 0]` is 0."""
    _check_temperature(temperature)
    return _align(_entropies(logits[:, :-1], temperature))


class TokenStatistics(NamedTuple):
    """Log-prob of every token and entropy of the distribution that predicts it."""

    logprobs: Float[Array, "B T"]
    entropies: Float[Array, "B T"]


def chunked_statistics(
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    head: Callable[[jax.Array], jax.Array],
    *,
    temperature: Scalar = 1.0,
    chunk: int = 64,
) -> TokenStatistics:
    """Equal to `token_logprobs` and `token_entropies` of `logits = head(hidden)`, in less memory.

    Logits are computed for `chunk` positions of every row at a time and recomputed in the backward
    pass: memory `B · chunk · V` instead of `B · T · V`, at the cost of one more product with the
    head. `head` maps `[..., D]` to `[..., V]`; gradients flow to parameters it closes over.
    """
    _check(hidden, tokens, temperature)
    checks.check_range("chunk", chunk, 1, float("inf"), hint="it counts positions, 64 is usual")
    rows, length, width = hidden.shape
    predicted = length - 1
    chunk = max(1, min(chunk, predicted))  # a row of one token predicts none
    padding = -predicted % chunk
    states = jnp.pad(hidden[:, :-1], ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(tokens[:, 1:], ((0, 0), (0, padding)))
    chunks = (predicted + padding) // chunk

    @jax.checkpoint
    def statistics(states: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = head(states)
        return _logprobs(logits, targets, temperature), _entropies(logits, temperature)

    def step(_: None, inputs: tuple[jax.Array, jax.Array]) -> tuple[None, tuple]:
        return None, statistics(*inputs)

    # Positions are chunked and rows are not, so the sharding of rows is kept.
    states = jnp.moveaxis(states.reshape(rows, chunks, chunk, width), 1, 0)
    targets = jnp.moveaxis(targets.reshape(rows, chunks, chunk), 1, 0)
    _, per_chunk = jax.lax.scan(step, None, (states, targets))
    joined = [jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :predicted] for x in per_chunk]
    return TokenStatistics(*map(_align, joined))


def _check(features: jax.Array, tokens: jax.Array, temperature: Scalar) -> None:
    if jnp.ndim(features) != 3 or jnp.shape(features)[:2] != jnp.shape(tokens):
        raise ValueError(
            f"tokens must be [rows, positions] like logits or hidden states [rows, positions, ...],"
            f" got shapes {jnp.shape(tokens)} and {jnp.shape(features)}; pass both unshifted"
        )
    _check_temperature(temperature)


def _check_temperature(temperature: Scalar) -> None:
    checks.check_positive(
        "temperature", temperature, hint="greedy tokens have no log-probs, sample at 1"
    )


def _logprobs(logits: jax.Array, targets: jax.Array, temperature: Scalar) -> jax.Array:
    scaled = logits.astype(jnp.float32) / temperature
    chosen = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scaled, axis=-1)


def _entropies(logits: jax.Array, temperature: Scalar) -> jax.Array:
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)
    # −inf marks tokens that cannot be drawn: 0 · log 0 is 0, in the gradient as well.
    safe = jnp.where(jnp.isneginf(log_p), 0.0, log_p)
    return -jnp.sum(jnp.exp(log_p) * safe, axis=-1)


def _align(predicted: jax.Array) -> jax.Array:
    return jnp.pad(predicted, ((0, 0), (1, 0)))
