"""Normalization over an explicit set of turns, with a defined result for every degenerate set.

A set whose standard deviation is at most `relative_threshold` times its largest magnitude counts as
equal and gets *exactly* 0: in float32 the rounding of the mean alone would otherwise be blown up to
advantages of order one. A set with a single entry is such a set. No result carries a gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.credit import sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar

RELATIVE_THRESHOLD = 1e-5


def normalize(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    over: sets.Set = sets.group,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
    relative_threshold: Scalar = RELATIVE_THRESHOLD,
) -> Float[Array, "M K"]:
    """`(x − mean) / (std + eps)` with mean and std over the set of each turn; 0 outside `mask`.

    A set of equal values, or of at most `ddof` values, gives 0.
    """
    check_options(ddof, eps)
    moments = over(values, mask, group_ids, ddof)
    # With no more values than ddof there is no deviation to divide by.
    informative = (moments.std > relative_threshold * moments.largest) & (moments.count > ddof)
    scale = 1.0 / (moments.std + eps) if divide_by_std else jnp.ones_like(moments.std)
    centered_values = as_float(values) - moments.mean
    normalized = jnp.where(mask & informative, centered_values * scale, 0.0)
    return jax.lax.stop_gradient(normalized)


def standardized(
    over: sets.Set = sets.group,
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Credit:
    """`(x − mean) / (std + eps)` over the set of each turn; see `normalize`."""
    check_options(ddof, eps)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        return normalize(
            x,
            episodes.turn_mask & episodes.included[:, None],
            episodes.group_ids,
            over=over,
            divide_by_std=divide_by_std,
            ddof=ddof,
            eps=eps,
        )

    return stateless(values)


def centered(over: sets.Set = sets.group) -> Credit:
    """`x − mean` over the set of each turn."""
    return standardized(over, divide_by_std=False)


def scaled(over: sets.Set = sets.batch, *, ddof: int = 0, eps: Scalar = 1e-6) -> Credit:
    """`x / (std + eps)` over the set of each turn; 0 if the set has no deviation."""
    check_options(ddof, eps)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept = episodes.turn_mask & episodes.included[:, None]
        moments = over(x, kept, episodes.group_ids, ddof)
        informative = (moments.std > 0) & (moments.count > ddof)
        return jnp.where(informative, x / (moments.std + eps), 0.0)

    return stateless(values)


def check_options(ddof: int, eps: Scalar) -> None:
    """Raises on a negative `ddof` or `eps`."""
    checks.check_range(
        "ddof", ddof, 0, float("inf"), hint="0 is the population's deviation, 1 the sample's"
    )
    checks.check_range(
        "eps", eps, 0.0, float("inf"), hint="it is added to the deviation, 1e-6 is usual"
    )
