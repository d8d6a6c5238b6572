"""AEM: confident turns count more."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def aem(*, rate: float = 1.0) -> Modifier:
    """AEM's adaptive entropy modulation (arXiv 2605.00425): confident turns count more.

    `A[m, k] · α[m, k]`, `α = exp(−rate · h) / mean_g(exp(−rate · h))`, where
    `h = (H − min_g H) / (max_g H − min_g H)` of the mean entropy H of a turn, over all turns of the
    group. The weights have mean 1; `rate` 0 leaves the method as it is.

    Unknown: the rate (1 is chosen). Our reading of notes on version 1, since no official code was
    found: equal entropies give weights of 1.
    """
    link = credit.concentrated(rate)
    return lambda method: add_link(method, link)
