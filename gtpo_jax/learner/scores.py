"""Log-probs and entropies of the tokens of a batch under a policy, by micro-batches."""

from __future__ import annotations

import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp

from gtpo_jax.maths import logprobs
from gtpo_jax.types import ForwardFn, Params, TokenBatch


def batch_logprobs(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    needs: Collection[str] = (),
) -> logprobs.TokenStatistics:
    """Log-probs and entropies `[B, T]` of the tokens of a batch under `params`.

    `chunk`: number of positions of every row whose logits are in memory at once. None: all.
    `needs`: further statistics, names of `logprobs.EXTRAS`; others are ignored.
    """
    if forward.statistics is not None:
        return logprobs.TokenStatistics(
            *forward.statistics(params, batch, temperature=temperature, chunk=chunk, needs=needs)
        )
    hidden, _ = forward.hidden(
        params,
        batch.tokens,
        batch.positions,
        segment_ids=batch.segment_ids,
        prefix_ids=batch.prefix_ids,
    )
    head = functools.partial(forward.logits, params)
    compute = logprobs.token_statistics
    if chunk is not None:
        compute = functools.partial(logprobs.chunked_statistics, chunk=chunk)
    return compute(
        hidden,
        batch.tokens,
        head,
        temperature=temperature,
        needs=sorted(set(needs) & set(logprobs.EXTRAS)),
        candidates=None if batch.candidates is None else batch.candidates.ids,
    )


def logprob_gap(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> jax.Array:
    """Largest `|log π(token) − log μ(token)|` over the trained tokens of a batch `[A, B, T]`.

    Right after a rollout π and μ are the same policy, so the gap measures the numerical difference
    between the decode programs and the forward pass of the learner.
    """

    def larger(index: jax.Array, gap: jax.Array) -> jax.Array:
        micro_batch = micro_batch_at(batch, index)
        policy_logprobs = batch_logprobs(
            forward, params, micro_batch, temperature=temperature, chunk=chunk
        ).logprobs
        gaps = jnp.abs(policy_logprobs - micro_batch.behavior_logprobs)
        return jnp.maximum(gap, jnp.max(jnp.where(micro_batch.loss_mask, gaps, 0.0)))

    return jax.lax.fori_loop(0, filled_micro_batches(batch), larger, jnp.zeros((), jnp.float32))


def stepwise_logprobs(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> jax.Array:
    """Log-probs `[A, B, T]` of the tokens of a batch, by micro-batches; 0 in empty ones."""

    def write(index: jax.Array, written: jax.Array) -> jax.Array:
        found = batch_logprobs(
            forward, params, micro_batch_at(batch, index), temperature=temperature, chunk=chunk
        )
        return written.at[index].set(found.logprobs)

    return jax.lax.fori_loop(
        0, filled_micro_batches(batch), write, jnp.zeros(batch.tokens.shape, jnp.float32)
    )


def micro_batch_at(batch: TokenBatch, index: jax.Array | int) -> TokenBatch:
    """Micro-batch number `index` of a batch `[A, B, T]`."""
    return jax.tree.map(lambda x: jnp.asarray(x)[index], batch)


def filled_micro_batches(batch: TokenBatch) -> jax.Array:
    """Number of micro-batches up to the last one with a trained token.

    Packing fills micro-batches from the front, so loops up to this number skip the empty ones.
    """
    count = jnp.arange(1, batch.loss_mask.shape[0] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(jnp.any(batch.loss_mask, axis=(1, 2)), count, 0))
