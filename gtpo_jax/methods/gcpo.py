"""GCPO: advantages weighed by a causal projection of the group's responses."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def gcpo(*, scale: float = 2.0) -> Modifier:
    """GCPO, causal (arXiv 2508.05428): advantages times the alignment with the group's responses.

    `A'[m, k] = A[m, k] · U_m`, `U_m = scale · cos(z_m, Z_m − Z'_m + mean_g(z))`, where z is the
    hidden state of a response, Z that of answers sampled again after the prompt and all other
    responses, and Z' its mean over the integrated answers.

    A negative U changes the sign of the advantage. Deviation: the second divergence, from
    `π(· | x_i) − Σ_l π(· | x_i, y_l) + π(· | q)`, is left out: as printed it can be negative, so
    that its log-probs need a bound the paper does not give.
    """
    return lambda method: add_link(method, credit.times_alignment(scale=scale))
