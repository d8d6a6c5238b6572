"""Modifiers of the ratio: its unit, its reference policy, and importance weights."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, change_policy_term


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


def importance(*, limit: float = 2.0) -> Modifier:
    """Truncated importance weights for the sampler (decoupled PPO, arXiv 2505.24298).

    `w = min(π₀ / μ, limit)` times the surrogate of `π / π₀`; turns on `recompute`.
    """
    checks.check_positive("limit", limit, hint="2 is usual, infinity truncates nothing")

    def modify(method: Method) -> Method:
        return change_policy_term(
            method,
            lambda term: dataclasses.replace(term, recompute=True, importance_limit=limit),
            name="importance",
        )

    return modify
