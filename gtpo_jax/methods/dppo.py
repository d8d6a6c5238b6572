"""DPPO: tokens leave the loss where probabilities moved too far, not ratios."""

from __future__ import annotations

import dataclasses

from gtpo_jax.methods.method import Method, Modifier, change_policy_term
from gtpo_jax.parts.losses import Divergence, TrustRegion


def dppo(*, low: float = 0.2, high: float = 0.2, divergence: Divergence = "tv") -> Modifier:
    """DPPO (arXiv 2602.04879): a trust region of probabilities in place of the clip range.

    `loss = −ρ A`, and 0 where `A > 0` and `π − μ > high`, or `A < 0` and `μ − π > low` (total
    variation over "this token" and "another"); `divergence=kl` bounds `KL(μ ‖ π)` over the two
    events instead, for which .05 is recommended. Ratios of rare tokens may be large, those of
    likely tokens may not.

    Published: both masks, .2 for `tv` and .05 for `kl` (SkyRL; prime-rl has .2 too), ratios to the
    sampler. The masks over the top-k of the paper are left out: it finds no gain in them. It takes
    the place of the method's surrogate and needs ratios of tokens (no `unit_ratio`, no `gspo`).
    """
    surrogate = TrustRegion(low=low, high=high, divergence=divergence)

    def modify(method: Method) -> Method:
        return change_policy_term(
            method, lambda term: dataclasses.replace(term, surrogate=surrogate), name="dppo"
        )

    return modify
