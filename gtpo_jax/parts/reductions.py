"""Reductions of a loss per token to one number.

Each returns a `WeightedSum`: totals and weights of micro-batches, packed rows and devices add up,
and are divided once. Packing keeps a trajectory within one row, so its own mean can be taken there.

| reduction | weighs equally | weight |
|---|---|---|
| `token_mean` | every token (DAPO; our default) | trained tokens |
| `sequence_mean` | every trajectory, its tokens by their mean (GRPO) | trained trajectories |
| `turn_mean` | every turn, its tokens by their mean | trained turns |
| `constant_length` | every token, divided by a constant (Dr.GRPO) | trajectories × length |
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking, units
from gtpo_jax.maths.precision import as_float
from gtpo_jax.types import Scalar, TokenBatch

Reduction = Callable[[jax.Array, TokenBatch], masking.WeightedSum]
"""`(per_token [B, T], batch) → WeightedSum`: one of those below, or your own."""


def token_mean(per_token: Float[Array, "B T"], batch: TokenBatch) -> masking.WeightedSum:
    """`Σ_t loss_t / Σ_t 1` over the trained tokens of the whole batch."""
    _check(per_token, batch)
    return masking.masked_sum(per_token, batch.loss_mask)


def sequence_mean(per_token: Float[Array, "B T"], batch: TokenBatch) -> masking.WeightedSum:
    """`(1 / n) Σ_i (1 / |y_i|) Σ_t loss_it` over the n trajectories with a trained token."""
    _check(per_token, batch)
    return _mean_of_unit_means(per_token, batch.loss_mask, units.unit_ids(batch, turns=False))


def turn_mean(per_token: Float[Array, "B T"], batch: TokenBatch) -> masking.WeightedSum:
    """`(1 / n) Σ_k (1 / |y_k|) Σ_t loss_kt` over the n turns with a trained token."""
    _check(per_token, batch)
    return _mean_of_unit_means(per_token, batch.loss_mask, units.unit_ids(batch, turns=True))


def constant_length(
    per_token: Float[Array, "B T"], batch: TokenBatch, *, length: Scalar
) -> masking.WeightedSum:
    """`(1 / (n · length)) Σ_i Σ_t loss_it` over the n trajectories with a trained token.

    `length` is a constant of the run, such as the token budget of a trajectory.
    """
    _check(per_token, batch)
    check_length(length)
    total = masking.masked_sum(per_token, batch.loss_mask).total
    _, count = _unit_counts(batch.loss_mask, units.unit_ids(batch, turns=False))
    return masking.WeightedSum(total, count * length)


def over_length(length: Scalar) -> Reduction:
    """`constant_length` with this length."""
    check_length(length)
    return functools.partial(constant_length, length=length)


def check_length(length: Scalar) -> None:
    """Raises unless the length is at least 1."""
    checks.check_range(
        "length",
        length,
        1,
        float("inf"),
        hint="it counts tokens, such as the budget of a trajectory",
    )


def _unit_counts(
    mask: Bool[Array, "B T"], unit_ids: Int[Array, "B T"]
) -> tuple[Float[Array, "B T"], Float[Array, ""]]:
    """Trained tokens of each token's unit, and the number of units that have any."""
    changes = unit_ids[:, 1:] != unit_ids[:, :-1]
    first = jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    last = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
    # Differences of running counts, carried from the ends of a unit to all of it: no gather.
    trained = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    before = jax.lax.cummax(jnp.where(first, trained - mask.astype(jnp.int32), 0), axis=1)
    upto = jax.lax.cummin(jnp.where(last, trained, mask.shape[1]), axis=1, reverse=True)
    sizes = (upto - before).astype(jnp.float32)
    return sizes, jnp.sum(first & (sizes > 0), dtype=jnp.float32)


def _mean_of_unit_means(
    per_token: Float[Array, "B T"], mask: Bool[Array, "B T"], unit_ids: Int[Array, "B T"]
) -> masking.WeightedSum:
    sizes, count = _unit_counts(mask, unit_ids)
    kept = jnp.where(mask, as_float(per_token), 0.0)
    return masking.WeightedSum(jnp.sum(kept / jnp.maximum(sizes, 1.0)), count)


def _check(per_token: jax.Array, batch: TokenBatch) -> None:
    checks.check_same_shape(per_token=per_token, loss_mask=batch.loss_mask)
    checks.check_masks(loss_mask=batch.loss_mask)
