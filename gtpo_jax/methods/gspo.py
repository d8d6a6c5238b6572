"""GSPO: the ratio of a sequence, or of a turn, in place of each token's."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.methods.ratios import unit_ratio
from gtpo_jax.parts import losses, reductions, rewards


def gspo(
    *,
    unit: Literal["sequence", "turn"] = "sequence",
    low: float = 3e-4,
    high: float = 4e-4,
) -> Method:
    """GSPO, Group Sequence Policy Optimization (arXiv 2507.18071): one ratio per sequence.

    `ρ_i = exp((1 / |y_i|) Σ_t log(π(y_it) / μ(y_it)))`, clipped as a whole, with GRPO's advantages.

    `unit` "turn" takes the mean over a turn: our own variant, for trajectories of several turns.
    The value of the ratio is the unit's, its gradient each token's own (the paper's GSPO-token).
    """
    reduce = reductions.turn_mean if unit == "turn" else reductions.sequence_mean
    return unit_ratio(unit=unit)(
        Method(
            rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
            credit=grpo_credit(),
            loss=losses.clipped(low=low, high=high),
            reduce=reduce,
        )
    )


def turn_gspo(*, low: float = 3e-4, high: float = 4e-4) -> Method:
    """GSPO (arXiv 2507.18071) per turn, our own: `gspo unit=turn`.

    `ρ_k = exp((1 / |y_k|) Σ_{t ∈ k} log(π(y_t) / μ(y_t)))`, clipped as a whole, mean over turns.

    In a trajectory of several turns tool output divides the text of the policy into actions; the
    ratio of a turn keeps one bad turn from clipping the others. The clip range is GSPO's, made for
    longer units.
    """
    return gspo(unit="turn", low=low, high=high)
