"""GMPO's clamp: log-ratios of tokens are bounded before their mean is taken."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float

INFINITY = float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogClamp:
    """`min(x, high)` for A > 0 and `max(x, −low)` for A < 0, of log-ratios x of tokens (GMPO, arXiv
    2507.20673), as PPO's clip binds; no gradient where it binds. x for A = 0.
    """

    low: float = 0.4
    high: float = 0.4

    def __post_init__(self):
        hint = "it bounds a log-ratio, 0.4 is the paper's; infinity bounds nothing"
        checks.check_range("low", self.low, 0.0, INFINITY, hint=hint)
        checks.check_range("high", self.high, 0.0, INFINITY, hint=hint)

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantages: Float[Array, "*B"]
    ) -> tuple[Float[Array, "*B"], Bool[Array, "*B"]]:
        """The bounded log-ratios, and the tokens whose bound binds."""
        log_ratio = as_float(log_ratio)
        over = (advantages > 0) & (log_ratio > self.high)
        under = (advantages < 0) & (log_ratio < -self.low)
        bounded = jnp.where(over, self.high, jnp.where(under, -self.low, log_ratio))
        return bounded, jax.lax.stop_gradient(over | under)
