"""GTPO of Tan: tokens earn by their share of the entropy."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards, spreads


def gtpo_tokens(
    *,
    base: float = 1.0,
    weight: float = 0.1,
    floor: float = 0.2,
    apart: bool = False,
    silent: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Method:
    """GTPO, token level (arXiv 2508.04349): uncertain tokens of successes earn more.

    `A_it = (r̃_it − mean_g(r̃)) / std_g(r̃)` over tokens, where
    `r̃_it = base · r_i + weight · d_t H_it / Σ_{k ∈ O⁺} H_kt` in the d_t rewarded trajectories of
    the group that reach token t, and
    `r̃_it = −base − weight · h_t (1 / H_it) / Σ_{k ∈ O⁻} (1 / H_kt)` in the h_t others.

    Published: base 1, weight .1 (experiments). Deviations: the paper normalizes the tokens of O⁺
    and of O⁻ each by themselves (`apart`), after which the mean advantage of right and of wrong
    tokens is the same, 0; here all tokens of the group are normalized together. Groups of equal
    outcome, where entropy alone would be blown up to unit variance, are silent (`silent`).
    `apart=true silent=false` is the printed form. Unknown: the treatment of entropies near 0, by
    which O⁻ divides; here they count as `floor` (notes on version 5 clip them to [.2, .28]).
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.total(),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
        spread=spreads.by_entropy(
            base=base, weight=weight, floor=floor, apart=apart, silent=silent, ddof=ddof, eps=eps
        ),
    )
