"""How much the tokens of a group resemble those of its successes, by their gradients (NTHR)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.learner.scores import filled_micro_batches, micro_batch_at
from gtpo_jax.maths import masking
from gtpo_jax.types import ForwardFn, Params, TokenBatch

WORDS = 1024
"""Largest number of words of a group whose prediction errors are compared."""

PRECISION = jax.lax.Precision.HIGHEST


def prediction_errors(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    words: Int[Array, "B T W"],
) -> Float[Array, "B T W"]:
    """`1[w = target] − softmax(logits)_w` for the words of each token's group; 0 for words −1."""
    index = jnp.maximum(words, 0)
    predicted = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), index, axis=-1)
    return jnp.where(words >= 0, (words == targets[..., None]) - predicted, 0.0)


def sums_of_products(
    errors: Float[Array, "B T W"],
    states: Float[Array, "B T D"],
    counted: Bool[Array, "B T"],
    group_ids: Int[Array, "B T"],
    *,
    groups: int,
) -> Float[Array, "{groups} W D"]:
    """`S[g] = Σ_k err_k h_kᵀ` over the counted tokens of each group."""

    def one(group: jax.Array) -> jax.Array:
        own = jnp.where((counted & (group_ids == group))[..., None], errors, 0.0)
        return jnp.einsum("btw,btd->wd", own, states, precision=PRECISION)

    return jax.lax.map(one, jnp.arange(groups))


def products_with_sums(
    errors: Float[Array, "B T W"],
    states: Float[Array, "B T D"],
    sums: Float[Array, "G W D"],
    group_ids: Int[Array, "B T"],
) -> Float[Array, "B T"]:
    """`err_tᵀ S[g] h_t`, g the group of token t: `Σ_k (err_k · err_t) (h_k · h_t)`."""

    def one(group: jax.Array, out: jax.Array) -> jax.Array:
        along = jnp.einsum("btd,wd->btw", states, sums[group], precision=PRECISION)
        return jnp.where(group_ids == group, jnp.sum(errors * along, axis=-1), out)

    return jax.lax.fori_loop(0, len(sums), one, jnp.zeros(group_ids.shape, states.dtype))


def frequent_words(batch: TokenBatch, *, groups: int, vocabulary: int) -> jax.Array:
    """The words `[groups, W]` that occur most in the trained tokens of each group, W at most
    `WORDS`; −1 where a group has fewer.
    """
    assert batch.group_ids is not None
    counts = jnp.zeros((groups, vocabulary), jnp.int32)
    ids, tokens, trained = map(masking.everywhere, (batch.group_ids, batch.tokens, batch.loss_mask))
    counts = counts.at[ids, tokens].add(trained.astype(jnp.int32))
    found, words = jax.lax.top_k(counts, min(vocabulary, WORDS))
    return jnp.where(found > 0, words, -1)


def token_likeness(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    *,
    groups: int,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Float[Array, "A B T"]:
    """`s_t = Σ_k (err_k · err_t) (h_k · h_t)` of every token of a batch `[A, B, T]`, over the
    trained tokens k of the successes of its group; 0 in empty micro-batches.

    `h_t` is the final hidden state that predicts token t, and `err_t` its prediction error, the
    one-hot of the token minus the distribution, at the words that occur in the group. `err hᵀ` is
    the gradient of the token's log-prob by the head of the model, and s_t the product of that
    gradient with the sum of those of the successes.

    Two passes: the first sums products, in `groups · W · D` numbers, the second multiplies with
    them, so the cost is linear in the number of tokens. The batch needs `group_ids` and
    `successes`; `groups` is the largest number of groups. `chunk`: number of positions of every row
    whose logits are held at once.
    """
    words = frequent_words(batch, groups=groups, vocabulary=forward.vocab_size)
    head = functools.partial(forward.logits, params)

    def features(
        states: jax.Array, targets: jax.Array, ids: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        errors = prediction_errors(head(states) / temperature, targets, words[ids])
        return errors, states.astype(jnp.float32)

    def gather(sums: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
        states, targets, ids, right = inputs
        more = sums_of_products(*features(states, targets, ids), right, ids, groups=groups)
        return sums + more, None

    def multiply(sums: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        states, targets, ids, _ = inputs
        return sums, products_with_sums(*features(states, targets, ids), sums, ids)

    def chunks(index: jax.Array | int) -> tuple:
        return _predicted(forward, params, micro_batch_at(batch, index), chunk)

    def scores(index: jax.Array) -> jax.Array:
        found = jax.lax.scan(multiply, sums, chunks(index))[1]
        whole = jnp.moveaxis(found, 0, 1).reshape(batch.tokens.shape[1], -1)
        return jnp.pad(whole[:, : batch.tokens.shape[2] - 1], ((0, 0), (1, 0)))

    filled = filled_micro_batches(batch)
    width = jax.eval_shape(chunks, 0)[0].shape[-1]
    sums = jax.lax.fori_loop(
        0,
        filled,
        lambda index, sums: jax.lax.scan(gather, sums, chunks(index))[0],
        jnp.zeros((groups, words.shape[1], width), jnp.float32),
    )
    return jax.lax.fori_loop(
        0,
        filled,
        lambda index, out: out.at[index].set(scores(index)),
        jnp.zeros(batch.tokens.shape, jnp.float32),
    )


def _predicted(
    forward: ForwardFn, params: Params, batch: TokenBatch, chunk: int | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Hidden states, the tokens that they predict, the groups of those, and whether they are
    trained tokens of successes; in chunks of positions.
    """
    assert batch.group_ids is not None and batch.successes is not None
    hidden, _ = forward.hidden(
        params,
        batch.tokens,
        batch.positions,
        segment_ids=batch.segment_ids,
        prefix_ids=batch.prefix_ids,
    )
    targets = (batch.tokens, batch.group_ids, batch.successes & batch.loss_mask)
    inputs = (hidden[:, :-1], *(x[:, 1:] for x in targets))
    return jax.tree.map(lambda x: _chunks(x, chunk), inputs)


def _chunks(x: jax.Array, chunk: int | None) -> jax.Array:
    """`[B, T, ...]` as `[chunks, B, chunk, ...]`, padded with zeros; one chunk without a size."""
    rows, length = x.shape[:2]
    size = max(1, length if chunk is None else min(chunk, length))
    padding = -length % size
    padded = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
    split = padded.reshape(rows, (length + padding) // size, size, *x.shape[2:])
    return jnp.moveaxis(split, 1, 0)
