"""Random orders of the problems of a pool, without repetition."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def shuffled(key: jax.Array, count: int) -> jax.Array:
    """All of `count` problems in a random order, `[N]` int32."""
    return jax.random.permutation(key, count).astype(jnp.int32)


def weighted(key: jax.Array, weights: jax.Array) -> jax.Array:
    """All problems in the order of draws by weight without replacement, `[N]` int32.

    The next problem is i with probability `w_i / Σ_j w_j` over those that are left (Gumbel noise on
    the logarithms of the weights gives just these draws). Problems of weight 0 come last, in a
    random order.
    """
    some, rest = jax.random.split(key)
    noise = jax.random.gumbel(some, weights.shape)
    drawable = weights > 0
    scores = jnp.where(drawable, jnp.log(jnp.where(drawable, weights, 1.0)) + noise, -jnp.inf)
    others = jax.random.uniform(rest, weights.shape)
    return jnp.lexsort((others, -scores)).astype(jnp.int32)


def best_first(key: jax.Array, scores: jax.Array) -> jax.Array:
    """All problems, the highest score first, equal scores in a random order; `[N]` int32."""
    return jnp.lexsort((jax.random.uniform(key, scores.shape), -scores)).astype(jnp.int32)


def mixed(key: jax.Array, first: jax.Array, *, of: int, every: int, count: int) -> jax.Array:
    """The first `count` problems of an order in which `of` of every `every` problems come next in
    the order `first`, and the others are drawn uniformly from those that are left.

    `first` has all N problems; no problem comes twice. At most N are returned.
    """
    second = shuffled(key, len(first))
    # Merge two orders of the same problems: each place asks one of them for its next unused one.
    asks_first = jnp.arange(min(count, len(first))) % every < of

    def take(used: jax.Array, from_first: jax.Array) -> tuple[jax.Array, jax.Array]:
        order = jnp.where(from_first, first, second)
        problem = order[jnp.argmin(used[order])]
        return used.at[problem].set(True), problem

    return jax.lax.scan(take, jnp.zeros(len(first), bool), asks_first)[1].astype(jnp.int32)
