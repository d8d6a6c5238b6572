"""Corrections of a policy term for a sampler that differs from the learner.

π₀ is the policy that a step began with, scored by the learner, and μ the sampler. A correction
turns `log π₀ − log μ` into detached weights: bounded ratios, or 0 for tokens that are rejected.
Weights of several corrections multiply. A rejected token still counts in the mean of the loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks, divergences, ratios, units
from gtpo_jax.maths.precision import as_float
from gtpo_jax.types import TokenBatch

Unit = Literal["token", "turn", "sequence"]
Measure = Literal["ratio", "k2", "k3", "binary_kl"]

INFINITY = float("inf")


class Weights(NamedTuple):
    """Weights of tokens, and the tokens whose statistic lay outside the bounds."""

    weights: Float[Array, "*B"]
    outside: Bool[Array, "*B"]


@runtime_checkable
class Correction(Protocol):
    """`(log π₀ − log μ, log π₀) → Weights`, elementwise: of tokens, or of candidates."""

    @property
    def unit(self) -> Unit:
        """Tokens that share a weight: those of a turn or a sequence, or each its own."""
        ...

    @property
    def how(self) -> ratios.Aggregate:
        """How the statistics of the tokens of a unit become one."""
        ...

    def statistic(self, log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
        """The statistic of each token."""
        ...

    def weigh(self, statistic: jax.Array, log_ratio: jax.Array) -> Weights:
        """The weights for statistics of tokens or units, and log-ratios of tokens."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncation:
    """`w = clip(r, low, high)` with the ratio `r = π₀ / μ` of a token, a turn or a sequence.

    The ratio of a unit is the geometric mean of those of its trained tokens (AReaL), or their
    product with `how="sum"` (verl, and the unbiased weight of a sequence).
    """

    low: float = 0.0
    high: float = 2.0
    unit: Unit = "token"
    how: ratios.Aggregate = "mean"

    def __post_init__(self):
        _check_bounds(self.low, self.high)
        checks.check_positive("high", self.high, hint="2 is usual, infinity truncates nothing")

    def statistic(self, log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
        del logprobs
        return log_ratio

    def weigh(self, statistic: jax.Array, log_ratio: jax.Array) -> Weights:
        del log_ratio
        ratio = jnp.exp(_bounded(statistic))
        return Weights(
            jnp.clip(ratio, self.low, self.high), (ratio < self.low) | (ratio > self.high)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acceptance:
    """`w = 1[low ≤ m ≤ high]`, or `r · 1[…]` with `weigh_ratio`, where `r = π₀ / μ` of the token.

    The measure m of a token is its ratio r, an estimate of the divergence (`k2`: `(log r)² / 2`,
    `k3`: `r − 1 − log r`), or `binary_kl`: the larger of KL(π₀ ‖ μ) and KL(μ ‖ π₀) over the two
    events "this token" and "another". Over a turn or a sequence, `how` takes the mean, the sum or
    the largest of its trained tokens; of ratios it takes them of their logarithms.
    """

    measure: Measure = "ratio"
    low: float = 0.0
    high: float = INFINITY
    unit: Unit = "token"
    how: ratios.Aggregate = "mean"
    weigh_ratio: bool = False

    def __post_init__(self):
        _check_bounds(self.low, self.high)

    def statistic(self, log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
        return MEASURES[self.measure](log_ratio, logprobs)

    def weigh(self, statistic: jax.Array, log_ratio: jax.Array) -> Weights:
        low, high = self.low, self.high
        if self.measure == "ratio":
            low = math.log(low) if low > 0 else -INFINITY
            high = math.log(high) if high > 0 else -INFINITY
        outside = (statistic < low) | (statistic > high)
        kept = jnp.exp(_bounded(log_ratio)) if self.weigh_ratio else jnp.ones_like(log_ratio)
        return Weights(jnp.where(outside, 0.0, kept), outside)


def binary_kl(
    logprobs: Float[Array, "*B"], other_logprobs: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """KL(p ‖ q) over two events: `p log(p / q) + (1 − p) log((1 − p) / (1 − q))`.

    p and q are probabilities of one token. Infinite where q is 1 and p is not.
    """
    log_p, log_q = as_float(logprobs), as_float(other_logprobs)
    rest_p, rest_q = -jnp.expm1(log_p), -jnp.expm1(log_q)
    log_rest = jnp.where(rest_p > 0, jnp.log(rest_p) - jnp.log(rest_q), 0.0)
    rest = jnp.where(rest_p > 0, rest_p * log_rest, 0.0)
    return jnp.maximum(jnp.exp(log_p) * (log_p - log_q) + rest, 0.0)


def _two_sided(log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
    sampler = logprobs - log_ratio
    return jnp.maximum(binary_kl(logprobs, sampler), binary_kl(sampler, logprobs))


MEASURES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "ratio": lambda log_ratio, logprobs: log_ratio,
    "k2": lambda log_ratio, logprobs: 0.5 * jnp.square(log_ratio),
    "k3": lambda log_ratio, logprobs: divergences.k3(log_ratio),
    "binary_kl": _two_sided,
}
"""Measure → function of `(log_ratio, logprobs)` of tokens."""


def correct(
    correction: Correction, log_ratio: jax.Array, logprobs: jax.Array, batch: TokenBatch
) -> Weights:
    """The weights `[B, T]` of the tokens of a batch; no gradient flows through them."""
    log_ratio, logprobs = jax.lax.stop_gradient((log_ratio, logprobs))
    statistic = correction.statistic(log_ratio, logprobs)
    if correction.unit != "token":
        statistic = ratios.unit_values(
            statistic,
            batch.loss_mask,
            units.row_unit_ids(batch, turns=correction.unit == "turn"),
            units=batch.tokens.size,
            how=correction.how,
        )
    return correction.weigh(statistic, log_ratio)


def token_weights(
    corrections: tuple[Correction, ...], log_ratio: jax.Array, logprobs: jax.Array
) -> jax.Array:
    """The product of the weights that corrections of single tokens give, elementwise."""
    weight = jnp.ones_like(log_ratio)
    for correction in corrections:
        if correction.unit == "token":
            statistic = correction.statistic(log_ratio, logprobs)
            weight = weight * correction.weigh(statistic, log_ratio).weights
    return weight


def _bounded(log_ratio: jax.Array) -> jax.Array:
    return jnp.clip(log_ratio, -ratios.LOG_RATIO_BOUND, ratios.LOG_RATIO_BOUND)


def _check_bounds(low: float, high: float) -> None:
    if not 0 <= low <= high:
        raise ValueError(
            f"the bounds must be 0 <= low <= high, got {low} and {high}; low 0 turns off the lower"
            " bound, high infinity the upper"
        )
