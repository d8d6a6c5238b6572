"""Rank-GRPO: turns as the ranks of a list."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method
from gtpo_jax.methods.ratios import unit_ratio
from gtpo_jax.parts import credit, losses, reductions, rewards


def rank_grpo(
    *,
    missing: Literal["zero", "skip"] = "zero",
    format_penalty: float = 0.1,
    kl: float = 0.001,
    ddof: int = 1,
    eps: float = 1e-4,
) -> Method:
    """Rank-GRPO (arXiv 2510.20150): turns are ranks, discounted and compared by position.

    `A[m, k] = (R[m, k] − mean_k(R)) / std_k(R)` over turn k of the group, with
    `R[m, k] = Σ_{j ≥ k} r[m, j] / log2(j + 1)`, k and j from 1. One ratio a turn, the geometric
    mean of its tokens.

    Published: `ddof` 1, `eps` 1e-4, KL .001. The paper ranks items of a recommended list, whose
    hits are the rewards r: add yours by `+ reward function=…`. A row without turn k counts as 0
    there, as in the released code; `skip` leaves it out. Chosen: the clip range, and the format
    penalty in place of those for missing or surplus items.
    """
    return unit_ratio(unit="turn")(
        Method(
            rewards={
                "outcome": rewards.outcome(),
                "format": rewards.format_penalty(format_penalty),
            },
            credit=credit.chain(
                credit.ranked(), credit.standardized_by_rank(missing=missing, ddof=ddof, eps=eps)
            ),
            loss=losses.add(losses.clipped(low=0.2, high=0.28), losses.divergence(kl)),
            reduce=reductions.turn_mean,
        )
    )
