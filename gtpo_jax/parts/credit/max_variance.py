"""The rows of a batch whose advantages vary most (D3S, arXiv 2509.22115)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gtpo_jax.maths import draws
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.schedules import Schedule
from gtpo_jax.types import EpisodeBatch


def most_varied(
    values: Float[Array, " M"],
    kept: Bool[Array, " M"],
    number: Int[Array, ""] | int,
    keys: Shaped[Array, " M"],
) -> Bool[Array, " M"]:
    """The `number` rows among `kept` whose values have the largest variance.

    They are the i smallest and the `number − i` largest values for some i, which is found by prefix
    sums over the sorted values. Of equal values those with smaller `keys` count as smaller.
    """
    size = values.shape[0]
    count = jnp.sum(kept, dtype=jnp.int32)
    number = jnp.clip(number, 0, count)
    mean = jnp.sum(jnp.where(kept, values, 0.0)) / jnp.maximum(count, 1)
    centered = jnp.where(kept, values - mean, 0.0)
    order = jnp.lexsort((keys, centered, ~kept))
    sums = jnp.cumsum(jnp.pad(centered[order], (1, 0)))
    squares = jnp.cumsum(jnp.pad(jnp.square(centered[order]), (1, 0)))
    low = jnp.arange(size + 1)
    start = count - (number - low)  # the first of the largest values

    def chosen(x: jax.Array) -> jax.Array:
        return x[low] + x[size] - x[jnp.clip(start, 0, size)]

    n = jnp.maximum(number, 1)
    variance = chosen(squares) / n - jnp.square(chosen(sums) / n)
    best = jnp.argmax(jnp.where(low <= number, variance, -jnp.inf))
    place = jnp.argsort(order)
    return kept & ((place < best) | (place >= count - (number - best)))


def max_variance_rows(share: Schedule) -> Credit:
    """x, and 0 for the trajectories that are not among the most varied of the whole batch.

    The value of a trajectory is the mean of x over its turns. Of n trajectories `⌈share · n⌉` are
    kept, with the share of the step. Advantages are not normalized again. Among equal values a hash
    of the mean log-probs of its turns decides, so the order of rows does not.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        mask = episodes.turn_mask & episodes.included[:, None]
        total = jnp.sum(jnp.where(mask, as_float(x), 0.0), axis=1)
        means = total / jnp.maximum(jnp.sum(mask, axis=1), 1)
        step = jnp.max(jnp.where(kept, jnp.asarray(facts.read(episodes, facts.STEP)), 0))
        # Less than a thousandth of a row is rounding, not a row.
        number = jnp.ceil(share(step) * jnp.sum(kept) - 1e-3).astype(jnp.int32)
        keys = draws.of_rows(
            jnp.asarray(facts.read(episodes, facts.TURN_LOGPROBS)), episodes.turn_mask
        )
        return jnp.where(most_varied(means, kept, number, keys)[:, None], x, 0.0)

    return stateless(values, needs=(facts.STEP, facts.TURN_LOGPROBS))
