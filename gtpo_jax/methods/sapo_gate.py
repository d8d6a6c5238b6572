"""SAPO: a soft gate in place of the clip range."""

from __future__ import annotations

import dataclasses

from gtpo_jax.methods.method import Method, Modifier, change_policy_term
from gtpo_jax.parts.losses import SoftGate


def sapo_gate(*, positive: float = 1.0, negative: float = 1.05) -> Modifier:
    """SAPO, Soft Adaptive Policy Optimization (Qwen, arXiv 2511.20347): a soft trust region.

    `−(4 / τ) σ(τ (ρ − 1)) A`, with τ = `positive` for A > 0 and `negative` for A ≤ 0, in place of
    the method's surrogate: the weight of a token falls smoothly as its ratio leaves 1.

    Published: 1 and 1.05, ratios of tokens, mean over sequences (`grpo` has the mean over tokens).
    Ratios of turns and sequences (`+ unit_ratio`) are taken as well. The other SAPO, a swarm that
    shares rollouts (2509.08721), is no relative of this one.
    """
    surrogate = SoftGate(positive=positive, negative=negative)

    def modify(method: Method) -> Method:
        return change_policy_term(
            method, lambda term: dataclasses.replace(term, surrogate=surrogate), name="sapo_gate"
        )

    return modify
