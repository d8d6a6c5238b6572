"""Log-probs of the tokens that a masked-diffusion model wrote, for the learner.

A denoising step is a turn: its tokens are those that were unmasked in it, whatever their places in
the text. A batch therefore has the tokens of a response in the order in which they were written,
and `positions` say where they stand; a model whose tokens see each other reads nothing else.
Packing, advantages, losses, reductions, updates and `training.Training` are those of all models.

    forward = diffusion.scored(forward, method.loss, mask_id=config.mask_id, steps=canvas.steps)
    training = Training(forward, optimizer, method, layout)

`forward` must give no probability to the mask: see `decoding.restrict_vocabulary`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp

from gtpo_jax.maths import logprobs
from gtpo_jax.maths.elbo import Quadrature, elbo_parts
from gtpo_jax.parts.losses import Loss
from gtpo_jax.parts.losses.sequence import quadrature_of
from gtpo_jax.types import ForwardFn, Params, TokenBatch


def scored(forward: ForwardFn, loss: Loss, *, mask_id: int, steps: int, seed: int = 0) -> ForwardFn:
    """The model with the statistics that a loss is made for: those of `by_elbo` if it has a term
    with a quadrature, otherwise those of `by_step`.
    """
    quadrature = quadrature_of(loss)
    if quadrature is None:
        return by_step(forward, mask_id=mask_id, steps=steps)
    return by_elbo(forward, mask_id=mask_id, quadrature=quadrature, seed=seed)


def by_step(forward: ForwardFn, *, mask_id: int, steps: int) -> ForwardFn:
    """The model whose token statistics are those of the denoising step that wrote the token.

    `log π(y_i | the state before step s(i))`, where the state before step s shows the tokens of
    earlier steps and masks all others, and `s = turn_ids` (CJ-GRPO, arXiv 2509.23924). One pass a
    step; the backward pass recomputes each. `steps` is the largest number of steps.
    """

    def statistics(
        params: Params,
        batch: TokenBatch,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
        needs: Collection[str] = (),
    ) -> logprobs.TokenStatistics:
        @jax.checkpoint
        def before(step: jax.Array) -> logprobs.TokenStatistics:
            return _masked_statistics(
                *(forward, params, batch, batch.turn_ids >= step, mask_id),
                temperature=temperature,
                chunk=chunk,
                needs=needs,
            )

        def take(
            found: logprobs.TokenStatistics, step: jax.Array
        ) -> tuple[logprobs.TokenStatistics, None]:
            written = batch.turn_ids == step

            def keep(old: jax.Array, new: jax.Array) -> jax.Array:
                here = written.reshape(*written.shape, *(1,) * (old.ndim - written.ndim))
                return jnp.where(here, new, old)

            return jax.tree.map(keep, found, before(step)), None

        shapes = jax.eval_shape(before, jnp.int32(0))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(take, nothing, jnp.arange(steps, dtype=jnp.int32))[0]

    return dataclasses.replace(forward, statistics=statistics)


def by_elbo(
    forward: ForwardFn, *, mask_id: int, quadrature: Quadrature, seed: int = 0
) -> ForwardFn:
    """The model whose log-probs are the parts of the evidence lower bound (`maths.elbo`).

    Their sum over a response bounds its log-probability from below. Masks are drawn from `seed` and
    the contents of a row alone, so that all policies that score a batch see the same masks (old,
    new, and reference). Entropies are averaged in the same way as log-probs. Extras are refused.
    """

    def statistics(
        params: Params,
        batch: TokenBatch,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
        needs: Collection[str] = (),
    ) -> logprobs.TokenStatistics:
        extras = sorted(set(needs) & set(logprobs.EXTRAS))
        if extras:
            raise ValueError(
                f"an evidence lower bound has no {', '.join(extras)}; use a loss of single tokens,"
                " which is scored by denoising steps"
            )
        masked = _random_masks(batch, quadrature, seed)

        @jax.checkpoint
        def score(_: None, hidden: jax.Array) -> tuple[None, logprobs.TokenStatistics]:
            return None, _masked_statistics(
                *(forward, params, batch, hidden, mask_id),
                temperature=temperature,
                chunk=chunk,
                needs=(),
            )

        shape = batch.tokens.shape
        _, found = jax.lax.scan(score, None, masked.reshape(-1, *shape))

        def over_masks(values: jax.Array) -> jax.Array:
            return elbo_parts(values.reshape(masked.shape), masked, quadrature)

        return logprobs.TokenStatistics(over_masks(found.logprobs), over_masks(found.entropies))

    return dataclasses.replace(forward, statistics=statistics)


def _masked_statistics(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    masked: jax.Array,
    mask_id: int,
    *,
    temperature: float,
    chunk: int | None,
    needs: Collection[str],
) -> logprobs.TokenStatistics:
    """Statistics of all tokens where those of `masked [B, T]` are hidden from the model."""
    hidden, _ = forward.hidden(
        params,
        jnp.where(masked, mask_id, batch.tokens),
        batch.positions,
        segment_ids=batch.segment_ids,
        prefix_ids=batch.prefix_ids,
    )
    compute = logprobs.token_statistics
    if chunk is not None:
        compute = functools.partial(logprobs.chunked_statistics, chunk=chunk)
    # A mask predicts the token at its own place, and `compute` the one after it.
    candidates = None if batch.candidates is None else _later(batch.candidates.ids)
    found = compute(
        jnp.pad(hidden, ((0, 0), (0, 1), (0, 0))),
        _later(batch.tokens),
        functools.partial(forward.logits, params),
        temperature=temperature,
        needs=sorted(set(needs) & set(logprobs.EXTRAS)),
        candidates=candidates,
    )
    return jax.tree.map(lambda x: x[:, 1:], found)


def _later(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 0), *((0, 0),) * (x.ndim - 2)))


def _random_masks(batch: TokenBatch, quadrature: Quadrature, seed: int) -> jax.Array:
    """`[N, K, B, T]` bool: each trained token is hidden with probability t_n."""
    nodes, _ = quadrature.levels()
    length = batch.tokens.shape[1]
    behavior = jnp.where(batch.loss_mask, batch.behavior_logprobs, 0.0).astype(jnp.float32)
    words = jax.lax.bitcast_convert_type(behavior, jnp.uint32)
    words ^= batch.tokens.astype(jnp.uint32) * jnp.uint32(2654435761)
    odd = 2 * jnp.arange(length, dtype=jnp.uint32) + 1
    contents = jnp.sum(jnp.where(batch.loss_mask, words, 0) * odd, axis=1, dtype=jnp.uint32)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(contents)
    shape = (quadrature.nodes, quadrature.masks, length)
    draws = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    draws = jnp.moveaxis(draws, 0, 2)
    levels = jnp.asarray(nodes, jnp.float32)[:, None, None, None]
    return (draws < levels) & batch.loss_mask
