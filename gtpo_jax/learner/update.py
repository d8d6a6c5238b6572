"""The update: gradient of a per-token loss over micro-batches, one optimizer step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gtpo_jax.learner.scores import (
    batch_logprobs,
    filled_micro_batches,
    micro_batch_at,
    stepwise_logprobs,
)
from gtpo_jax.learner.state import TrainState, changing
from gtpo_jax.maths import masking
from gtpo_jax.parts.losses import Loss, Scores, with_group_share
from gtpo_jax.parts.reductions import Reduction
from gtpo_jax.types import Candidates, ForwardFn, Params, TokenBatch

Metrics = dict[str, jax.Array]
Sums = dict[str, masking.WeightedSum]

PEAKS = ("ratio",)
"""Diagnostics whose maximum over the trained tokens is a metric too, such as `ratio_max`."""


Update = Callable[[TrainState, TokenBatch], tuple[TrainState, Metrics]]
"""`(state, batch [A, B, T]) → (state, metrics)`."""


def make_update(
    forward: ForwardFn,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    reduce: Reduction,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    trajectories: int | None = None,
) -> Update:
    """One pure function `(state, batch [A, B, T]) → (state, metrics)`; jit it and donate the state.

    Gradients of the A micro-batches are summed in float32 and divided once by their common weight,
    so the division into micro-batches changes nothing. Frozen parts of the parameters have no
    gradient. A batch without any trained token leaves the state unchanged, and so does a gradient
    that is not finite: then the metric `skipped` is 1, and `nonfinite` marks the parameters
    concerned; see `nonfinite_names`.

    `chunk`: number of positions per row whose logits are held in memory at once. None: all.

    A loss with terms over groups costs one more forward pass over the batch, which must have whole
    groups, and needs `trajectories`: the largest number of trajectories of a batch.
    """
    if loss.group_terms and trajectories is None:
        raise ValueError(
            "a loss with terms over groups needs the largest number of trajectories of a batch;"
            " pass trajectories to `make_update`, as `training.Training` does"
        )
    micro_loss = _make_micro_loss(forward, loss, reduce, temperature=temperature, chunk=chunk)

    def update(state: TrainState, batch: TokenBatch) -> tuple[TrainState, Metrics]:
        gradient = jax.grad(micro_loss, has_aux=True)
        if trajectories is not None and loss.group_terms:
            batch = without_junk(batch)
            scored = stepwise_logprobs(
                forward, state.params, batch, temperature=temperature, chunk=chunk
            )
            batch = with_group_share(loss, reduce, scored, batch, trajectories=trajectories)

        def accumulate(index: jax.Array, total):
            micro_batch = micro_batch_at(batch, index)
            gradients, (sums, peaks) = gradient(state.trained, state.frozen, micro_batch)
            added = jax.tree.map(lambda a, b: a + b.astype(a.dtype), total[:2], (gradients, sums))
            return *added, jax.tree.map(jnp.maximum, total[2], peaks)

        first = jax.tree.map(lambda x: x[0], batch)
        _, figures = jax.eval_shape(gradient, state.trained, state.frozen, first)
        zeros = (
            jax.tree.map(lambda x: jnp.zeros_like(x, _at_least_float32(x.dtype)), state.trained),
            *jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), figures),
        )
        gradients, sums, peaks = jax.lax.fori_loop(
            0, filled_micro_batches(batch), accumulate, zeros
        )

        weight = sums["loss"].weight
        gradients = jax.tree.map(lambda g: g / jnp.maximum(weight, 1.0), gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trained)
        new = dataclasses.replace(
            state,
            trained=optax.apply_updates(state.trained, updates),
            optimizer_state=optimizer_state,
            step=state.step + 1,
        )
        metrics = {name: total.mean() for name, total in sums.items()} | peaks
        # The weight of the loss counts tokens, turns or trajectories: the reduction decides.
        trained_tokens = sums["entropy"].weight
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(norm)
        sums_of = [jnp.sum(leaf) for leaf in jax.tree.leaves(gradients)]
        metrics |= {
            "grad_norm": norm,
            "trained_tokens": trained_tokens,
            "skipped": 1.0 - finite,
            "nonfinite": ~jnp.isfinite(jnp.stack(sums_of)),
        }
        good = finite & (weight > 0)
        new = jax.tree.map(lambda n, o: jnp.where(good, n, o), changing(new), changing(state))
        return dataclasses.replace(state, **new), metrics

    return update


MicroLoss = Callable[
    [Params, dict[str, Params], TokenBatch], tuple[jax.Array, tuple[Sums, Metrics]]
]
"""`(trained, frozen, batch [B, T]) → total loss, (sums of diagnostics, maxima)`."""


def _make_micro_loss(
    forward: ForwardFn,
    loss: Loss,
    reduce: Reduction,
    *,
    temperature: float,
    chunk: int | None,
) -> MicroLoss:
    """The loss of a micro-batch, not divided by its weight, as a function of the parameters."""

    def micro_loss(
        trained: Params, frozen: dict[str, Params], batch: TokenBatch
    ) -> tuple[jax.Array, tuple[Sums, Metrics]]:
        params = {**frozen, **trained}
        batch = without_junk(batch)
        scores = Scores(
            *batch_logprobs(
                forward, params, batch, temperature=temperature, chunk=chunk, needs=loss.needs
            )
        )
        per_token, diagnostics = loss(scores, batch)
        reduced = reduce(per_token, batch)
        diagnostics = diagnostics | {"entropy": scores.entropies}
        sums = {
            name: masking.masked_sum(value, batch.loss_mask) for name, value in diagnostics.items()
        }
        peaks = {
            f"{name}_max": jnp.max(jnp.where(batch.loss_mask, diagnostics[name], 0.0))
            for name in PEAKS
            if name in diagnostics
        }
        return reduced.total, (sums | {"loss": reduced}, peaks)

    return micro_loss


def _at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    floating = jnp.issubdtype(dtype, jnp.floating)
    return jnp.promote_types(dtype, jnp.float32) if floating else dtype


MASKED = ("behavior_logprobs", "token_advantages", "proximal_logprobs", "reference_logprobs")


def without_junk(batch: TokenBatch) -> TokenBatch:
    """The batch with 0 wherever no token is trained.

    Leaving such a token out of the sum does not keep its NaN out of the gradient; its inputs have
    to be finite.
    """
    trained = batch.loss_mask
    clean: dict[str, Any] = {
        name: jnp.where(trained, values, 0.0)
        for name in MASKED
        if (values := getattr(batch, name)) is not None
    }
    if batch.marks is not None:
        clean["marks"] = {
            name: jnp.where(trained, values, 0.0) for name, values in batch.marks.items()
        }
    if batch.candidates is not None:
        ids, recorded = batch.candidates
        clean["candidates"] = Candidates(
            jnp.where(trained[..., None], ids, 0), jnp.where(trained[..., None], recorded, -jnp.inf)
        )
    return dataclasses.replace(batch, **clean)


class CompiledUpdate:
    """A compiled update that reuses the memory of the state, except its frozen parts, for its
    result, which is placed exactly as `state` is.

    Otherwise the compiler may describe an equal placement differently, and the second update would
    be compiled again. `program(changing(state), state.frozen, batch)` can be lowered for shapes.
    """

    def __init__(self, update: Update, state: TrainState):
        placements = jax.tree.map(lambda leaf: leaf.sharding, changing(state))

        @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placements, None))
        def program(given: dict[str, Any], frozen: dict[str, Params], batch: TokenBatch):
            state, metrics = update(TrainState(frozen=frozen, **given), batch)
            return changing(state), metrics

        self.program = program

    def __call__(self, state: TrainState, batch: TokenBatch) -> tuple[TrainState, Metrics]:
        given, metrics = self.program(changing(state), state.frozen, batch)
        return dataclasses.replace(state, **given), metrics
