"""Modifiers of the ratio: its unit, its reference policy, and importance weights."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, change_policy_term, correct_policy_term
from gtpo_jax.parts.losses import Acceptance, Truncation, Unit


def unit_ratio(*, unit: Literal["sequence", "turn"] = "turn") -> Modifier:
    """One ratio for a sequence (GSPO, arXiv 2507.18071) or for a turn (our own).

    `ρ = exp(mean_t log ρ_t)` over the trained tokens of the unit; gradients are each token's own.
    """

    def modify(method: Method) -> Method:
        return change_policy_term(
            method, lambda term: dataclasses.replace(term, unit=unit), name="unit_ratio"
        )

    return modify


def recompute() -> Modifier:
    """Ratios against log-probs that the learner computes when a step begins.

    `ρ = π / π₀`, where π₀ is the policy of the step, scored by the learner itself instead of the
    sampler: for sampler and learner that disagree, as in bfloat16.
    """

    def modify(method: Method) -> Method:
        return change_policy_term(
            method, lambda term: dataclasses.replace(term, recompute=True), name="recompute"
        )

    return modify


def importance(
    *,
    limit: float = 2.0,
    low: float = 0.0,
    unit: Unit = "token",
    over: Literal["mean", "product"] = "mean",
) -> Modifier:
    """Truncated importance weights for the sampler (TIS), of tokens, turns or sequences.

    `w = clip(π₀ / μ, low, limit)` times the surrogate of `π / π₀`; turns on `recompute`.

    The ratio of a turn or a sequence is the geometric mean of those of its trained tokens, or their
    product (`over=product`), which is unbiased and varies most. An infinite `limit` is the
    decoupled objective of arXiv 2505.24298; see `decoupled_ppo`. Turns are our own.
    """
    checks.check_positive("limit", limit, hint="2 is usual, infinity truncates nothing")
    how = "sum" if over == "product" else "mean"
    correction = Truncation(low=low, high=limit, unit=unit, how=how)
    return lambda method: correct_policy_term(method, correction, name="importance")


def decoupled_ppo(*, limit: float = 5.0) -> Modifier:
    """Decoupled PPO (arXiv 2505.24298): the trust region is around the step's own policy.

    `w · surrogate(π / π₀)`, `w = (π₀ / μ) 1[π₀ / μ ≤ limit]`: π₀ is the policy that the step began
    with, scored by the learner, and μ the sampler, which may be several versions older.

    The paper has w without a limit (`limit=inf`); its code, AReaL, drops tokens with a weight above
    5, as here. `importance` truncates such weights instead.
    """
    correction = Acceptance(high=limit, weigh_ratio=True)
    return lambda method: correct_policy_term(method, correction, name="decoupled_ppo")
