"""Tokens with which successes and failures begin or end alike (GTPO of Simoni, 2508.03772)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.spreads.spread import Spread, Written, evenly
from gtpo_jax.types import EpisodeBatch, Scalar


class Conflicts(NamedTuple):
    """Tokens in conflict, `[M, L]` bool."""

    initial: jax.Array  # in the common beginning, within the first turn
    final: jax.Array  # in the common end, within the last turn


def conflicts(
    advantages: Float[Array, "M K"],
    tokens: Int[Array, "M L"],
    turn_ids: Int[Array, "M L"],
    group_ids: Int[Array, " M"],
) -> Conflicts:
    """Marks the run from the first token on in which each token also stands, at the same position,
    in a trajectory of the group whose advantage has the other sign; and the run up to the last
    token, with positions counted from the end.

    The first run lies in the first turn and compares the advantages of first turns; the second lies
    in the last turn. Different tokens of a run may meet different trajectories.
    """
    count = jnp.sum(turn_ids >= 0, axis=1)
    last = jnp.max(turn_ids, axis=1, initial=-1, keepdims=True)
    place = count[:, None] - 1 - jnp.arange(tokens.shape[1])  # the same position from the end

    def backwards(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, jnp.maximum(place, 0), axis=1)

    from_end = backwards(turn_ids == last) & (place >= 0)
    last_advantages = jnp.take_along_axis(advantages, jnp.maximum(last, 0), axis=1)[:, 0]
    initial = _runs(tokens, turn_ids == 0, advantages[:, 0], group_ids)
    final = _runs(backwards(tokens), from_end, last_advantages, group_ids)
    return Conflicts(initial, backwards(final) & (place >= 0))


def _runs(
    tokens: jax.Array, mask: jax.Array, advantages: jax.Array, group_ids: jax.Array
) -> jax.Array:
    """The initial runs of conflicts within `mask`, `[M, L]`."""
    signs = jnp.sign(advantages)
    rivals = signs[:, None] * masking.everywhere(signs) < 0
    rivals &= group_ids[:, None] == masking.everywhere(group_ids)
    equal = tokens[:, None, :] == masking.everywhere(tokens)
    met = jnp.any(rivals[:, :, None] & equal & masking.everywhere(mask), axis=1) & mask
    return jax.lax.cummin(met.astype(jnp.int32), axis=1) > 0


def protected(
    *, gain: Scalar = 2.0, entropy_limit: Scalar = 0.7, entropy_weight: Scalar = 0.1
) -> Spread:
    """`w_t (A − entropy_weight · H) / max(n, 1)` for trajectories of mean entropy
    `H ≤ entropy_limit`, 0 for the others, where n is the number of tokens in conflict.

    `w_t` is 1 outside conflicts; in each run it is `gain` for A > 0 and 0 for A < 0, and a token of
    both runs has the product.
    """
    checks.check_range("gain", gain, 0.0, float("inf"), hint="2 is the paper's, 1 is neutral")

    def spread(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
        advantages = jnp.where(episodes.included[:, None], as_float(advantages), 0.0)
        tokens, turn_ids = jnp.asarray(written.tokens), jnp.asarray(written.turn_ids)
        mask = (turn_ids >= 0) & episodes.included[:, None]
        runs = conflicts(advantages, tokens, turn_ids, episodes.group_ids)
        values = evenly(advantages, written, episodes)
        weight = jnp.where(values > 0, gain, 0.0)
        weights = jnp.where(runs.initial, weight, 1.0) * jnp.where(runs.final, weight, 1.0)
        number = jnp.sum(runs.initial | runs.final, axis=1, keepdims=True)
        entropy = mean_entropies(written)[:, None]
        shaped = weights * (values - entropy_weight * entropy) / jnp.maximum(number, 1)
        return jnp.where(mask & (entropy <= entropy_limit), shaped, 0.0)

    return spread


def mean_entropies(written: Written) -> Float[Array, " M"]:
    """The mean entropy of the tokens of each trajectory, in nats; 0 without tokens."""
    mask: Bool[Array, "M L"] = jnp.asarray(written.turn_ids) >= 0
    total = jnp.sum(jnp.where(mask, as_float(written.entropies), 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1)
