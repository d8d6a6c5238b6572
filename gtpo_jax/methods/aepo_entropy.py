"""AEPO: tokens of high entropy count more."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import spreads


def aepo_entropy(*, weight: float = 0.2, ddof: int = 1) -> Modifier:
    """AEPO's entropy-aware advantage, of the ARPO family (arXiv 2510.14545): for each token.

    `A_t · (1 + weight · (H_t − mean(H)) / std(H))`, over all trained tokens of the batch.

    Published: weight .2. ARPO itself has no such term: there entropy decides where rollouts
    branch. Deviations: entropies are those of sampling, and the batch is the whole
    step, where the released code takes a micro-batch; AEPO's clipping, which keeps the gradient of
    clipped tokens, is left out (`+ weight_clip` is near it). Where `H_t` is 5 deviations below the
    mean, the sign changes.
    """
    return lambda method: method._replace(
        spread=spreads.entropy_scaled(method.spread, weight=weight, ddof=ddof)
    )
