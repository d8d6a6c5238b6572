"""Normalization over a stated set of turns, with a stated result for every degenerate set.

Four functions of one signature; the set over which mean and standard deviation are taken is the
whole difference between them. On the same data they can give advantages of different signs.

A set whose standard deviation is at most `relative_threshold` times its largest magnitude counts as
equal and gets *exactly* 0: in float32 the rounding of the mean alone would otherwise be blown up to
advantages of order one. A set with a single entry is such a set. No result carries a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking
from gtpo_jax.types import Scalar

NormalizeFn = Callable[..., jax.Array]
"""`(values [M, K], mask [M, K], group_ids [M], *, divide_by_std, ddof, eps) → [M, K]`, 0 where
`mask` is False: one of the functions below, or your own.
"""

RELATIVE_THRESHOLD = 1e-5


def normalize_within_groups(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
    relative_threshold: Scalar = RELATIVE_THRESHOLD,
) -> Float[Array, "M K"]:
    """`(x − mean_g) / (std_g + eps)`, statistics over every kept turn of every row of the group.

    A row with more turns weighs more in them: they are per turn, not per trajectory.
    """
    moments = masking.group_moments(values, mask, group_ids, ddof=ddof)
    return _standardize(values, mask, moments, divide_by_std, ddof, eps, relative_threshold)


def normalize_within_turn_index(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
    relative_threshold: Scalar = RELATIVE_THRESHOLD,
) -> Float[Array, "M K"]:
    """`(x − mean_gk) / (std_gk + eps)`, statistics over turn k of every row of the group.

    A turn index that a single row of the group reached gives 0.
    """

    def column(x: jax.Array, kept: jax.Array) -> jax.Array:
        moments = masking.group_moments(x[:, None], kept[:, None], group_ids, ddof=ddof)
        return _standardize(
            x[:, None], kept[:, None], moments, divide_by_std, ddof, eps, relative_threshold
        )[:, 0]

    return jax.vmap(column, in_axes=1, out_axes=1)(values, mask)


def normalize_by_first_turn(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
    relative_threshold: Scalar = RELATIVE_THRESHOLD,
) -> Float[Array, "M K"]:
    """`(x_k − mean_g) / (std_g + eps)`, statistics over the *first* turn of every row of the group:
    one value, the return of the whole trajectory, for each.

    Equal first turns give 0 on every turn.
    """
    moments = masking.group_moments(values[:, :1], mask[:, :1], group_ids, ddof=ddof)
    return _standardize(values, mask, moments, divide_by_std, ddof, eps, relative_threshold)


def normalize_over_batch(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
    relative_threshold: Scalar = RELATIVE_THRESHOLD,
) -> Float[Array, "M K"]:
    """`(x − mean) / (std + eps)`, statistics over every kept turn of the whole batch."""
    return normalize_within_groups(
        values,
        mask,
        jnp.zeros_like(group_ids),
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
        relative_threshold=relative_threshold,
    )


def check_options(ddof: int, eps: Scalar) -> None:
    """Raises on a negative `ddof` or `eps`."""
    checks.check_range(
        "ddof", ddof, 0, float("inf"), hint="0 is the population's deviation, 1 the sample's"
    )
    checks.check_range(
        "eps", eps, 0.0, float("inf"), hint="it is added to the deviation, 1e-6 is usual"
    )


def _standardize(
    values: jax.Array,
    mask: jax.Array,
    moments: masking.GroupMoments,
    divide_by_std: bool,
    ddof: int,
    eps: Scalar,
    relative_threshold: Scalar,
) -> jax.Array:
    check_options(ddof, eps)
    # A ddof that exceeds the evidence leaves no deviation to speak of.
    informative = (moments.std > relative_threshold * moments.largest) & (moments.count > ddof)
    scale = 1.0 / (moments.std + eps) if divide_by_std else jnp.ones_like(moments.std)
    centered = values.astype(jnp.float32) - moments.mean[:, None]
    normalized = jnp.where(mask & informative[:, None], centered * scale[:, None], 0.0)
    return jax.lax.stop_gradient(normalized)
