"""Masked sums, and statistics within groups. A mask is boolean and True means keep."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from gtpo_jax.maths.precision import as_float


def everywhere(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Replicates `x` on every device, for code that compares or sums entries of all rows.

    On a mesh with explicit axes a gather or scatter over sharded rows must be requested. On any
    other mesh the compiler inserts the exchange, and this function returns `x` unchanged.
    """
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec()))


class WeightedSum(NamedTuple):
    """A mean that has not been divided yet.

    Totals and weights of micro-batches and devices are added, and the division happens once at the
    end, so the result does not depend on how the data was split.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    def mean(self) -> Float[Array, ""]:
        """`total / weight`, and exactly 0 when nothing was summed."""
        return jnp.where(self.weight > 0, self.total / jnp.maximum(self.weight, 1.0), 0.0)


def masked_sum(x: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> WeightedSum:
    """Σ x over the entries where `mask` is True, and their number.

    Other entries are ignored, NaN included.
    """
    values = jnp.where(mask, as_float(x), 0.0)
    return WeightedSum(jnp.sum(values), jnp.sum(mask, dtype=jnp.float32))


def masked_mean(x: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """Mean over the entries where `mask` is True; 0 when there are none."""
    return masked_sum(x, mask).mean()


class GroupMoments(NamedTuple):
    """Statistics of each row's group, gathered back to the rows."""

    count: Float[Array, " M"]
    mean: Float[Array, " M"]
    std: Float[Array, " M"]
    largest: Float[Array, " M"]  # largest magnitude, the scale of a negligible `std`


def group_moments(
    values: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    *,
    ddof: int = 0,
) -> GroupMoments:
    """Mean and standard deviation over the entries of all rows of a group where `mask` is True.

    `mean_g = Σ x / n_g`, `std_g = sqrt(Σ (x − mean_g)² / (n_g − ddof))`, in two passes:
    the mean is corrected by the mean of the residuals. An empty group has count, mean and std 0.
    Group ids lie in `[0, M)`; rows of a group need not be adjacent.
    """
    rows = values.shape[0]
    values = jnp.where(mask, as_float(values), 0.0)
    group_ids = everywhere(group_ids)

    def per_group(x: jax.Array) -> jax.Array:
        row_sums = everywhere(jnp.sum(x, axis=1))
        return jax.ops.segment_sum(row_sums, group_ids, num_segments=rows)[group_ids]

    count = per_group(mask.astype(jnp.float32))
    mean = per_group(values) / jnp.maximum(count, 1.0)
    # The rounding error of a long sum grows with its length; residuals are small, so theirs is too.
    residual = jnp.where(mask, values - mean[:, None], 0.0)
    mean += per_group(residual) / jnp.maximum(count, 1.0)
    centered = jnp.where(mask, values - mean[:, None], 0.0)
    variance = per_group(jnp.square(centered)) / jnp.maximum(count - ddof, 1.0)
    magnitude = everywhere(jnp.max(jnp.abs(values), axis=1, initial=0.0))
    largest = jax.ops.segment_max(magnitude, group_ids, num_segments=rows)[group_ids]
    return GroupMoments(count, mean, jnp.sqrt(variance), largest)
