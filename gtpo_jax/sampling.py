"""Choosing the next token: pure functions from logits and keys to tokens and their log-probs."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp


class Sampler(Protocol):
    """`(keys [B], logits [B, V]) → tokens [B] int32, logprobs [B] float32` of the
    distribution sampled from.
    """

    def __call__(self, keys: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]: ...


def mask_vocabulary(logits: jax.Array, vocab_size: int) -> jax.Array:
    """Logits with every id ≥ `vocab_size` at −inf: embeddings are often padded
    beyond the tokenizer.
    """
    return jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)


def categorical(
    keys: jax.Array, logits: jax.Array, *, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Draws from `softmax(logits / temperature)`, each row with its own key."""
    scaled = logits.astype(jnp.float32) / temperature
    tokens = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    return tokens, _logprob(scaled, tokens)


def greedy(keys: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The most likely token. Its log-prob is that of `softmax(logits)`, not of the point mass: a
    measure of the model's confidence, and never a behavior log-prob to train on."""
    del keys
    logits = logits.astype(jnp.float32)
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return tokens, _logprob(logits, tokens)


def trajectory_keys(
    seed: jax.Array, step: jax.Array, problems: jax.Array, samples: jax.Array
) -> jax.Array:
    """One key per trajectory, folded from (seed, step, problem, sample) and nothing else.

    `problems` are 32-bit ids of the problems themselves, so a trajectory does not depend on who
    shares its batch. The position of a token is folded in when it is drawn.
    """
    base = jax.random.fold_in(jax.random.key(seed), step)

    def fold(problem: jax.Array, sample: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(base, problem), sample)

    return jax.vmap(fold)(problems, samples)


def _logprob(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
