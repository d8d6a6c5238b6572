"""Choosing the next token: pure functions from logits and keys to a `Draw`.

Probabilities are those of `p = softmax(logits / temperature)` over the whole vocabulary, computed
in float32 whatever the dtype of the logits. A logit of −inf marks a token that is never drawn; it
has no probability and adds nothing to the entropy (0 · log 0 = 0). Every row needs a finite logit,
otherwise its values are NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
from typing import Protocol

import jax
import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.types import Candidates, Scalar

INFINITY_BITS = 0x7F800000  # of float32
TINY = float(jnp.finfo(jnp.float32).tiny)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """One token per row, and its probability.

    Let q be the distribution that is drawn from, which is p restricted to the kept tokens. Then
    `sampled_logprobs = log q(token) = log p(token) − log Σ_kept p ≥ logprobs`, with equality when
    nothing is cut. A learner re-evaluates p, so its ratio to `logprobs` is one on the first step.
    """

    tokens: jax.Array  # [B] int32
    logprobs: jax.Array  # [B] float32, log p(token), nats
    sampled_logprobs: jax.Array  # [B] float32, log q(token), nats
    entropies: jax.Array  # [B] float32, −Σ p log p, nats
    candidates: Candidates | None = None  # [B, K], log p of the likeliest tokens; see `recording`


class Sampler(Protocol):
    """`(keys [B], logits [B, V], factors [B] or None) → Draw`. Row b is a function of `keys[b]`,
    `logits[b]` and `factors[b]` alone.

    A factor multiplies the temperature that a row is drawn at, and 0 draws the likeliest token; p
    and its log-probs stay those of the temperature itself. None: all factors are 1. The keys are
    consumed.
    """

    def __call__(
        self, keys: jax.Array, logits: jax.Array, factors: jax.Array | None = None
    ) -> Draw: ...


def mask_vocabulary(logits: jax.Array, vocab_size: int) -> jax.Array:
    """Sets logits of ids ≥ `vocab_size`, the padding of many embeddings, to −inf."""
    return jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)


def categorical(
    keys: jax.Array,
    logits: jax.Array,
    factors: jax.Array | None = None,
    *,
    temperature: Scalar = 1.0,
) -> Draw:
    """Draws from p itself, so `sampled_logprobs` equal `logprobs` unless a factor is not 1. Sorts
    nothing.

    Raises `ValueError` for shapes other than `[B]` and `[B, V]` and for a temperature ≤ 0.
    """
    whole = _softmax(keys, logits, temperature)
    distances = _heated(whole.distances, factors)
    tokens = _draw(keys, distances)
    logprobs = sampled = _chosen(whole.distances, tokens) - jnp.log(whole.mass)
    if factors is not None:
        sampled = _chosen(distances, tokens) - jnp.log(jnp.sum(jnp.exp(distances), axis=-1))
    return Draw(
        tokens=tokens, logprobs=logprobs, sampled_logprobs=sampled, entropies=whole.entropies
    )


def truncated(
    keys: jax.Array,
    logits: jax.Array,
    factors: jax.Array | None = None,
    *,
    temperature: Scalar = 1.0,
    top_k: int | None = None,
    top_p: Scalar = 1.0,
    min_p: Scalar = 0.0,
) -> Draw:
    """Draws from p restricted to the tokens that pass three filters, in this order:

    1. `top_k`: keep the k likeliest tokens.
    2. `top_p`: renormalize, and keep the fewest likeliest tokens whose probabilities sum to `top_p`
       or more; at least one token, and all of them at `top_p = 1`.
    3. `min_p`: keep the tokens with `p(token) ≥ min_p · max p`.

    Where equal logits compete for the last place of 1 or 2, lower ids are kept. Temperature is
    applied first; the order is the one of `transformers`. vLLM also applies top-p after top-k, but
    min-p before both, so its nucleus is smaller when all three are set. SGLang applies top-p to the
    whole vocabulary.

    `top_k` is static, the others may be traced. With `top_k`, all work after one `lax.top_k` and
    the entropy is on k candidates, the draw included. Without it, bisection finds the smallest
    logit of the nucleus with 31 sums over the vocabulary instead of a sort, and the draw uses the
    noise of `categorical`: a token that `categorical` draws with a key is drawn here with the same
    key if it is kept.

    Raises `ValueError` for shapes other than `[B]` and `[B, V]`, a temperature ≤ 0, `top_k < 1`,
    and `top_p` or `min_p` outside [0, 1].
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}; pass None to keep all tokens")
    checks.check_range("top_p", top_p, 0.0, 1.0, hint="pass 1 to keep all tokens")
    checks.check_range("min_p", min_p, 0.0, 1.0, hint="pass 0 to keep all tokens")
    whole = _softmax(keys, logits, temperature)
    distances, ids = _heated(whole.distances, factors), None
    if top_k is not None and top_k < distances.shape[-1]:
        distances, ids = jax.lax.top_k(distances, top_k)
    # The filters compare these numbers twice: recomputed, their last bits might differ.
    distances = jax.lax.optimization_barrier(distances)
    kept = distances >= jnp.log(jnp.asarray(min_p, jnp.float32))
    if not (isinstance(top_p, numbers.Real) and top_p >= 1):
        kept &= _nucleus(distances, jnp.asarray(top_p, jnp.float32))
    chosen = _draw(keys, jnp.where(kept, distances, -jnp.inf))
    distance = _chosen(distances, chosen)
    kept_mass = jnp.sum(jnp.where(kept, jnp.exp(distances), 0.0), axis=-1)
    tokens = chosen if ids is None else _chosen(ids, chosen)
    own = distance if factors is None else _chosen(whole.distances, tokens)
    return Draw(
        tokens=tokens,
        logprobs=own - jnp.log(whole.mass),
        sampled_logprobs=distance - jnp.log(kept_mass),
        entropies=whole.entropies,
    )


def greedy(keys: jax.Array, logits: jax.Array, factors: jax.Array | None = None) -> Draw:
    """The likeliest token, the lowest id among equals, whatever the factors.

    The distribution that is drawn from is a point mass, so `sampled_logprobs` are 0. `logprobs` and
    `entropies` are of `softmax(logits)`: they measure the model's confidence and are not for
    training.
    """
    del factors
    whole = _softmax(keys, logits, 1.0)
    tokens = jnp.argmax(whole.distances, axis=-1).astype(jnp.int32)
    return Draw(
        tokens=tokens,
        logprobs=_chosen(whole.distances, tokens) - jnp.log(whole.mass),
        sampled_logprobs=jnp.zeros(tokens.shape, jnp.float32),
        entropies=whole.entropies,
    )


def recording(sampler: Sampler, *, count: int, temperature: Scalar = 1.0) -> Sampler:
    """A sampler that draws as the given one does, and records the `count` likeliest tokens.

    `candidates.logprobs[b, j] = log p(ids[b, j])`, the likeliest first, with
    `p = softmax(logits / temperature)`; `temperature` must be that of the sampler. Tokens that
    cannot be drawn, and places beyond the vocabulary, have log-prob −inf.
    """
    checks.check_range("count", count, 1, float("inf"), hint="it counts tokens, 8 to 64 is usual")
    return functools.partial(_record, sampler, count=count, temperature=temperature)


def _record(
    sampler: Sampler,
    keys: jax.Array,
    logits: jax.Array,
    factors: jax.Array | None = None,
    *,
    count: int,
    temperature: Scalar,
) -> Draw:
    whole = _softmax(keys, logits, temperature)
    size = whole.distances.shape[-1]
    distances, ids = jax.lax.top_k(whole.distances, min(count, size))
    missing = [(0, 0), (0, max(count - size, 0))]
    logprobs = jnp.pad(distances, missing, constant_values=-jnp.inf) - jnp.log(whole.mass)[:, None]
    return dataclasses.replace(
        sampler(keys, logits, factors), candidates=Candidates(jnp.pad(ids, missing), logprobs)
    )


def trajectory_keys(
    seed: jax.Array, step: jax.Array, problems: jax.Array, samples: jax.Array
) -> jax.Array:
    """One key per trajectory, folded from (seed, step, problem, sample) and nothing else.

    `problems` are 32-bit ids of the problems themselves, so a trajectory does not depend on the
    rest of its batch. The position of a token is folded in when it is drawn.
    """
    base = jax.random.fold_in(jax.random.key(seed), step)

    def fold(problem: jax.Array, sample: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(base, problem), sample)

    return jax.vmap(fold)(problems, samples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Softmax:
    """Parts of `log p = distances − log mass`; no common offset of the logits costs precision."""

    distances: jax.Array  # [B, V], ≤ 0: (logits − the largest) / temperature
    mass: jax.Array  # [B], ≥ 1: Σ exp(distances)
    entropies: jax.Array  # [B]


def _softmax(keys: jax.Array, logits: jax.Array, temperature: Scalar) -> _Softmax:
    if jnp.ndim(logits) != 2 or jnp.shape(keys) != jnp.shape(logits)[:1]:
        raise ValueError(
            f"logits must be [rows, vocabulary] with one key per row, got shapes"
            f" {jnp.shape(logits)} and {jnp.shape(keys)}; split the key, or give one row an axis"
        )
    checks.check_positive("temperature", temperature, hint="use greedy for the likeliest token")
    logits = logits.astype(jnp.float32)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    # All zeros get one sign: `top_k` and the bits tell 0.0 from −0.0, which are equal logits.
    distances = -jnp.abs((logits - largest) / temperature)
    weights = jnp.exp(distances)
    mass = jnp.sum(weights, axis=-1)
    # −Σ p log p = log mass − Σ p · distance: two terms ≥ 0, nothing cancels.
    finite = jnp.where(jnp.isneginf(distances), 0.0, distances)
    entropies = jnp.log(mass) - jnp.sum(weights * finite, axis=-1) / mass
    return _Softmax(distances=distances, mass=mass, entropies=entropies)


def _heated(distances: jax.Array, factors: jax.Array | None) -> jax.Array:
    """The distances at `factors` times the temperature; a factor of 0 leaves the likeliest alone,
    the lowest id among equals.
    """
    if factors is None:
        return distances
    likeliest = jnp.argmax(distances, axis=-1)[:, None]
    alone = jnp.where(jnp.arange(distances.shape[-1]) == likeliest, 0.0, -jnp.inf)
    greedy = factors[:, None] <= 0
    return jnp.where(greedy, alone, distances / jnp.where(greedy, 1.0, factors[:, None]))


def _nucleus(distances: jax.Array, top_p: jax.Array) -> jax.Array:
    """`[B, n]` bool: the fewest largest entries with `Σ_kept exp ≥ top_p · Σ exp`, all at 1.

    Entries are ≤ 0. The sum over the entries within a distance of 0 grows with the distance, so
    bisection finds the smallest distance that suffices. It is exact, because it bisects the bits of
    the floats, which have the order of the floats. Of the entries at that distance, it keeps as
    many as are needed, from the left.
    """
    weights = jnp.exp(distances)
    # Above 0 even for top_p = 0, so that one entry is kept.
    needed = jnp.maximum(top_p * jnp.sum(weights, axis=-1), TINY)
    bits = jax.lax.bitcast_convert_type(jnp.abs(distances), jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # the sum up to `low` is too small, the sum up to `high` is not
        middle = low + (high - low) // 2
        suffices = jnp.sum(jnp.where(bits <= middle[:, None], weights, 0.0), axis=-1) >= needed
        return jnp.where(suffices, low, middle), jnp.where(suffices, middle, high)

    nothing = jnp.full_like(needed, -1, dtype=jnp.int32)
    everything = jnp.full_like(needed, INFINITY_BITS, dtype=jnp.int32)
    _, bound = jax.lax.fori_loop(0, 31, halve, (nothing, everything))
    inside, edge = bits < bound[:, None], bits == bound[:, None]
    missing = needed - jnp.sum(jnp.where(inside, weights, 0.0), axis=-1)
    each = jnp.max(jnp.where(edge, weights, 0.0), axis=-1)
    count = jnp.ceil(missing / jnp.maximum(each, TINY))
    rank = jnp.cumsum(edge, axis=-1, dtype=jnp.int32)
    return inside | (edge & (rank <= count[:, None])) | (top_p >= 1.0)


def _draw(keys: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _chosen(values: jax.Array, index: jax.Array) -> jax.Array:
    """`out[b] = values[b, index[b]]`."""
    return jnp.take_along_axis(values, index[:, None], axis=-1)[:, 0]
