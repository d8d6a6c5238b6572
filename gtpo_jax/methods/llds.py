"""LLDS: a penalty keeps what was done well from becoming less likely."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import losses


def llds(*, weight: float = 0.2, unit: losses.Unit = "sequence") -> Modifier:
    """LLDS (arXiv 2512.04220): likelihood that falls although A ≥ 0 is penalized.

    `loss + weight · g_u · 1[A_t ≥ 0] · max(0, log μ_t − log π_t)`, with
    `g_u = 1[Σ_{t ∈ u, A_t ≥ 0} (log μ_t − log π_t) > 0]`.

    The unit u is a response (`sequence`), or the authors' chunk, which is a turn here: one
    contiguous text of the policy (`turn`). Published: weight .2, also for responses of advantage 0,
    with a KL of .001 and several updates a step: at the first one π = μ and the penalty is 0.
    Deviations: advantages may differ between turns, so the sum covers the tokens with A ≥ 0; a
    lower weight outside the answer, an option of the authors, is left out. μ is the sampler.
    """
    term = losses.kept_likelihood(weight=weight, unit=unit)
    return lambda method: method._replace(loss=losses.add(method.loss, term))
