"""Score centering: the drift that a mismatched sampler adds is taken out of the loss."""

from __future__ import annotations

import dataclasses

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, change_policy_term


def score_centering(*, count: int = 32) -> Modifier:
    """Score centering (arXiv 2609.20807): takes out what a sampler q ≠ p adds on average.

    `loss + A C`, `C = Σ_{v ∈ H} sg(q_v w_v − α p_v) log p_v`: the gradient of C is the mean of
    `w_v ∇ log p_v` under q. H are the `count` likeliest tokens of the sampler, which records them
    beside each draw; outside H, q is modelled as `ρ p`, with `α = ρ w(1 / ρ)`, where ρ is the ratio
    of the masses outside H.

    The weights w follow from the method: those that its own loss gives to the score of a token.
    With ratios to μ (`gtpo`) they are `p / q` within the clip range; with `recompute` they are 1,
    the paper's case without importance sampling, with `importance` those of TIS, with `icepop` or
    `kpop` those of the mask. Where w is exactly p / q there is no drift, and C is 0.

    Published: the estimator, its floor 1e-6 of both masses, and w for TIS and masks. Deviations:
    the paper's losses are REINFORCE; weights that depend on the sign of A (clipping, DPPO) are our
    reading. Public code records 10 to 128 tokens; `count` is our choice. Does not compose with
    ratios of turns or sequences (`unit_ratio`, `gspo`).
    """
    checks.check_range("count", count, 1, float("inf"), hint="it counts tokens, 8 to 64 is usual")

    def modify(method: Method) -> Method:
        return change_policy_term(
            method, lambda term: dataclasses.replace(term, centering=count), name="score_centering"
        )

    return modify
