"""Modifiers of the surrogate: its clip range, and bounds for negative advantages."""

from __future__ import annotations

import dataclasses

from gtpo_jax.methods.method import Method, Modifier, change_policy_term, change_surrogate
from gtpo_jax.parts.losses.cispo import WeightClip
from gtpo_jax.parts.losses.clipped import Clip


def clip(*, low: float = 0.2, high: float = 0.28) -> Modifier:
    """The clip range of the surrogate (DAPO, arXiv 2503.14476: clip-higher).

    `clip(ρ, 1 − low, 1 + high)`.
    """
    return lambda method: change_surrogate(method, Clip, name="clip", low=low, high=high)


def dual_clip(*, limit: float = 3.0) -> Modifier:
    """Dual clip (arXiv 1912.09729): bounds the loss for negative advantages and large ratios.

    `loss ≤ −limit · A` for A < 0.
    """
    return lambda method: change_surrogate(method, Clip, name="dual_clip", dual=limit)


def two_sided_clip(*, limit: float = 4.0) -> Modifier:
    """Two-sided clip (arXiv 2505.07291): bounds the ratio for negative advantages.

    `ρ ≤ limit` in the unclipped term for A < 0; `limit` must exceed `1 + high`.
    """
    return lambda method: change_surrogate(method, Clip, name="two_sided_clip", ratio_cap=limit)


def weight_clip(*, low: float = 1.0, high: float = 0.28) -> Modifier:
    """CISPO's surrogate (arXiv 2506.13585) in place of the method's.

    `loss = −sg(clip(ρ, 1 − low, 1 + high)) A log π`.
    """
    surrogate = WeightClip(low=low, high=high)

    def modify(method: Method) -> Method:
        return change_policy_term(
            method,
            lambda term: dataclasses.replace(term, surrogate=surrogate),
            name="weight_clip",
        )

    return modify
