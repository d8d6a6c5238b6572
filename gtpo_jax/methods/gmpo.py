"""GMPO: the geometric mean of clamped ratios of tokens."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gtpo_jax.methods.grpo import grpo
from gtpo_jax.methods.method import Method, Modifier, change_policy_term
from gtpo_jax.parts import reductions
from gtpo_jax.parts.losses import LogClamp, Unclipped


def geometric_mean(
    *, low: float = 0.4, high: float = 0.4, unit: Literal["sequence", "turn"] = "sequence"
) -> Modifier:
    """GMPO's surrogate (arXiv 2507.20673) in place of the method's.

    `−A ρ_u`, `ρ_u = exp(mean_{t ∈ u} x_t)` with the log-ratio x of a token held below `high` for
    A > 0 and above `−low` for A < 0. The gradient of a token is its own, 0 where its bound holds.

    `unit` "turn" is our own. Advantages may differ within a sequence; the authors' is one.
    """
    clamp = LogClamp(low=low, high=high)

    def modify(method: Method) -> Method:
        return change_policy_term(
            method,
            lambda term: dataclasses.replace(term, surrogate=Unclipped(), unit=unit, clamp=clamp),
            name="geometric_mean",
        )

    return modify


def gmpo(
    *, low: float = 0.4, high: float = 0.4, unit: Literal["sequence", "turn"] = "sequence"
) -> Method:
    """GMPO, Geometric-Mean Policy Optimization (arXiv 2507.20673): GRPO less driven by outliers.

    `(1 / G) Σ_i −A_i exp((1 / |y_i|) Σ_t x_it)`, where x_it is the log-ratio of the token, held
    below `high` for A > 0 and above `−low` for A < 0.

    Published: .4 and .4, per token, without a KL. The bounds are those of logarithms: ratios lie
    between e^−.4 and e^.4. `unit` "turn" takes the mean over a turn: our own.
    """
    reduce = reductions.turn_mean if unit == "turn" else reductions.sequence_mean
    return geometric_mean(low=low, high=high, unit=unit)(grpo()._replace(reduce=reduce))
