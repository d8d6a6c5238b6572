"""Weights of trajectories by how hard a demonstration makes their data and their model look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar

DEMONSTRATION_DISTANCE = Fact(
    "demonstration_distance",
    None,
    "[M] float32, 1 − similarity of the response's text to the demonstration",
    "an environment with demonstrations provides it, or a function of your own",
)
DEMONSTRATION_GAP = Fact(
    "demonstration_gap",
    None,
    "[M] float32, reward of the demonstration minus reward of the response",
    "an environment with demonstrations provides it, or a function of your own",
)


def data_hardness(distances: Float[Array, " M"], kept: Bool[Array, " M"]) -> Float[Array, " M"]:
    """`σ(d_i) / σ(mean(d))` with the mean over kept rows; above 1 for a response far from its
    demonstration.
    """
    mean = masking.masked_mean(distances, kept)
    return jax.nn.sigmoid(as_float(distances)) / jax.nn.sigmoid(mean)


def model_hardness(
    gaps: Float[Array, " M"], kept: Bool[Array, " M"], *, tau: Scalar
) -> Float[Array, ""]:
    """`σ(mean of the gaps with (gap − mean)² ≤ tau) / σ(mean)` over kept rows; 1 if there are none.

    The same for all rows: outliers of the gap do not count in the numerator.
    """
    mean = masking.masked_mean(gaps, kept)
    near = kept & (jnp.square(as_float(gaps) - mean) <= tau)
    ratio = jax.nn.sigmoid(masking.masked_mean(gaps, near)) / jax.nn.sigmoid(mean)
    return jnp.where(jnp.any(near), ratio, 1.0)


def times_hardness(
    *,
    tau: Scalar = 1.0,
    distance: Fact = DEMONSTRATION_DISTANCE,
    gap: Fact = DEMONSTRATION_GAP,
) -> Credit:
    """`x · data_hardness · model_hardness`."""
    checks.check_range(
        "tau", tau, 0.0, float("inf"), hint="it bounds squared deviations of the gap"
    )

    def factor(episodes: EpisodeBatch) -> jax.Array:
        kept = groups.members(episodes)
        distances, gaps = (jnp.asarray(facts.read(episodes, fact)) for fact in (distance, gap))
        return data_hardness(distances, kept) * model_hardness(gaps, kept, tau=tau)

    return rows.times(factor, needs=(distance, gap))
