"""GRPO-S of Tan: trajectories earn by their share of the entropy."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.methods.ratios import unit_ratio
from gtpo_jax.parts import credit, losses, reductions, rewards


def grpo_s(
    *,
    base: float = 1.0,
    weight: float = 0.1,
    floor: float = 0.2,
    silent: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Method:
    """GRPO-S, sequence level of `gtpo_tokens` (arXiv 2508.04349): uncertain successes earn more.

    `A[m, k] = (r̃_m − mean_g(r̃)) / std_g(r̃)`, where
    `r̃_i = base · r_i + weight · n H_i / Σ_{k ∈ O⁺} H_k` for the n rewarded trajectories of the
    group, and `r̃_i = −base − weight · m (1 / H_i) / Σ_{k ∈ O⁻} (1 / H_k)` for the m others; H_i is
    the mean entropy of the tokens of a trajectory.

    Published: base 1, weight .1 (experiments). Deviations: groups of equal outcome, where entropy
    alone would be blown up to unit variance, are silent (`silent=false` is the printed form); the
    ratio of a trajectory is the geometric mean of its tokens' ratios, the paper's the arithmetic
    one. Unknown: the treatment of entropies near 0, by which O⁻ divides; here they count as
    `floor`. Not the GRPO-S of DR-IRL.
    """
    shaped = credit.shared_by_entropy(base=base, weight=weight, floor=floor, silent=silent)
    method = Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.chain(
            credit.total(), shaped, credit.standardized(credit.first_turn, ddof=ddof, eps=eps)
        ),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.sequence_mean,
    )
    return unit_ratio(unit="sequence")(method)
