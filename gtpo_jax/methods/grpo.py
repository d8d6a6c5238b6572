"""GRPO: one advantage for the whole trajectory."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def grpo_credit(*, divide_by_std: bool = True, ddof: int = 0, eps: Scalar = 1e-6) -> credit.Credit:
    """`A[m, k] = (r_m − mean_g(r)) / (std_g(r) + eps)`, `r_m = Σ_k r[m, k]`, for all turns.

    A trajectory without turns is not part of any baseline.
    """
    options = {"divide_by_std": divide_by_std, "ddof": ddof, "eps": eps}
    return credit.chain(credit.total(), credit.standardized(credit.first_turn, **options))


grpo_advantages = credit.as_function(grpo_credit)


def grpo(*, divide_by_std: bool = True, ddof: int = 0, eps: float = 1e-6) -> Method:
    """GRPO, Group Relative Policy Optimization (arXiv 2402.03300), as the baseline of GTPO's paper.

    `A[m, k] = (r_m − mean_g(r)) / std_g(r)` for all turns; a well-formed success earns 1.

    Deviations: population deviation (`ddof` 0), clip-higher and token mean as in `gtpo`, so that
    the two differ only in their credit, and no KL term (`+ kl weight=…` adds it).
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=grpo_credit(divide_by_std=divide_by_std, ddof=ddof, eps=eps),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
