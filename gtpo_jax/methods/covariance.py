"""Clip-Cov and KL-Cov: the few tokens that make entropy collapse are held back."""

from __future__ import annotations

import dataclasses

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, change_policy_term
from gtpo_jax.parts import losses, spreads


def clip_cov(*, share: float = 2e-4, low: float = 1.0, high: float = 5.0) -> Modifier:
    """Clip-Cov (arXiv 2505.22617): some tokens of high covariance have no gradient.

    A = 0 for `max(⌊share · n⌋, 1)` of the n tokens, drawn from those with
    `low < (A_t − mean(A)) (log π_t − mean(log π)) < high`.

    Published: share 2e-4, 1 and 5. Deviations: the n tokens are those of the step, and π is the
    sampler, where verl chooses anew in every micro-batch with the trained policy; tokens that are
    clipped are not left out of the draw. The draw is by hash.
    """
    _check_share(share)
    return lambda method: method._replace(
        spread=spreads.without_covariant(method.spread, share=share, low=low, high=high)
    )


def kl_cov(*, share: float = 2e-3, weight: float = 1.0) -> Modifier:
    """KL-Cov (arXiv 2505.22617): tokens of the highest covariance pay for moving.

    `−A ρ + weight · 1[t among the top ⌊share · n⌋] · |log π_t − log μ_t|`, chosen by
    `(A_t − mean(A)) (log π_t − mean(log π))`, in place of the clipped surrogate.

    Published: share 2e-3 (7B) and 2e-4 (32B), weight 1. Deviations: the n tokens are those of the
    step, and π in the covariance is the sampler, as in `clip_cov`.
    """
    _check_share(share)
    checks.check_range("weight", weight, 0.0, float("inf"), hint="it weighs a penalty, 1 is usual")
    term = losses.MarkedDrift(weight=weight, mark=spreads.most_covariant(share))

    def modify(method: Method) -> Method:
        method = change_policy_term(
            method,
            lambda policy: dataclasses.replace(policy, surrogate=losses.Unclipped()),
            name="kl_cov",
        )
        return method._replace(loss=losses.add(method.loss, losses.Loss((term,))))

    return modify


def _check_share(share: float) -> None:
    checks.check_range("share", share, 0.0, 1.0, hint="it is a share of all tokens, 2e-4 is usual")
