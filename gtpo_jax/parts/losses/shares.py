"""Losses over whole groups as losses of tokens, so that micro-batches may divide the groups.

A term over groups is any function F of the log-probs of a whole batch. Its gradient is

    dF / dθ = Σ_t c_t · d log π(token t) / dθ,    c_t = ∂F / ∂ log π(token t),

so a first pass over the batch, which needs no gradient, finds the numbers c_t, and each micro-batch
adds `c_t log π(token t)` for its own tokens: the exact gradient, however the batch is divided.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.parts.losses.loss import Loss
from gtpo_jax.parts.losses.members import members_of
from gtpo_jax.parts.reductions import Reduction
from gtpo_jax.types import GroupShare, TokenBatch


def with_group_share(
    loss: Loss, reduce: Reduction, logprobs: jax.Array, batch: TokenBatch, *, trajectories: int
) -> TokenBatch:
    """The batch `[..., B, T]` with the share of each token in the terms of `loss` over groups.

    `logprobs [..., B, T]` are those of the policy that the update differentiates at. The reduction
    weighs tokens by `w_t / W`, and must be linear in the loss of tokens; the share carries the
    inverse of that weight, so that `reduce(loss(scores, batch)).mean()` has the terms over groups
    in full beside those of tokens. A batch without a trained token, and a loss without such terms,
    stay as they are. `trajectories` is the largest number of trajectories of the batch.
    """
    if not loss.group_terms:
        return batch
    logprobs = jax.lax.stop_gradient(jnp.where(batch.loss_mask, logprobs, 0.0))
    members = members_of(batch, trajectories=trajectories)

    def total(logprobs: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = [term(logprobs, batch, members) for term in loss.group_terms]
        named = {name: value for _, diagnostics in found for name, value in diagnostics.items()}
        return sum((value for value, _ in found), jnp.zeros((), logprobs.dtype)), named

    (value, diagnostics), slopes = jax.value_and_grad(total, has_aux=True)(logprobs)
    weights, weight = _token_weights(reduce, batch)
    weighed = batch.loss_mask & (weights > 0)
    scale = jnp.where(weighed, weight / jnp.where(weighed, weights, 1.0), 0.0)
    summed = jnp.maximum(jnp.sum(jnp.where(weighed, weights, 0.0)), jnp.finfo(weights.dtype).tiny)

    def of_tokens(x: jax.Array) -> jax.Array:
        return jnp.where(batch.loss_mask, x, jnp.zeros_like(logprobs))

    share = GroupShare(
        coefficients=slopes * scale,
        values=of_tokens(jnp.where(jnp.any(weighed), value * weight / summed, 0.0)),
        diagnostics={name: of_tokens(x) for name, x in diagnostics.items()},
    )
    return dataclasses.replace(batch, group_share=share)


def _token_weights(reduce: Reduction, batch: TokenBatch) -> tuple[jax.Array, jax.Array]:
    """The weights w `[..., B, T]` of tokens in the total of a reduction, and the weight W of it."""

    def total(per_token: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = reduce
        for _ in range(per_token.ndim - 2):
            one = jax.vmap(one)
        reduced = one(per_token, batch)
        return jnp.sum(reduced.total), jnp.sum(reduced.weight)

    nothing = jnp.zeros(batch.loss_mask.shape, jnp.result_type(batch.token_advantages))
    weights, weight = jax.grad(total, has_aux=True)(nothing)
    return weights, weight
