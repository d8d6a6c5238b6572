"""Normalization within groups, with a stated result for every degenerate group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax import masking


def normalize_within_groups(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
    relative_threshold: float = 1e-5,
) -> Float[Array, "M K"]:
    """`(x − mean_g) / (std_g + eps)` over all kept entries of a group; 0 where `mask` is False.

    A group whose `std_g ≤ relative_threshold · max|x|` counts as equal and gets *exactly* 0: in
    float32 the rounding of the mean alone would otherwise be blown up to advantages of order one. A
    group with a single entry is such a group. The result carries no gradient.
    """
    moments = masking.group_moments(values, mask, group_ids, ddof=ddof)
    # A ddof that exceeds the evidence leaves no deviation to speak of.
    informative = (moments.std > relative_threshold * moments.largest) & (moments.count > ddof)
    scale = 1.0 / (moments.std + eps) if divide_by_std else jnp.ones_like(moments.std)
    centered = values.astype(jnp.float32) - moments.mean[:, None]
    normalized = jnp.where(mask & informative[:, None], centered * scale[:, None], 0.0)
    return jax.lax.stop_gradient(normalized)
