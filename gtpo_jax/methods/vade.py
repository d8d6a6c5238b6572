"""VADE: Thompson sampling of the problems whose update gains most."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_prompts
from gtpo_jax.parts import prompts


def vade(*, prior: float = 1.0, met: float = 0.9, others: float = 0.99) -> Modifier:
    """VADE (arXiv 2511.18902): the problems with the highest `p (1 − p)²`, `p_i ~ Beta(a_i, b_i)`.

    Afterwards `a ← c + q (a − c) + successes`, `b ← c + q (b − c) + failures`; `c` is the prior,
    `q` is `met` for the problems of the step and `others` for all others.

    Our reading of the decay on two scales. Unknown: both rates (.9 and .99 are chosen), the prior
    (1, the uniform distribution, is chosen), and whether the paper decays every step.
    """
    chosen = prompts.thompson(prior=prior, met=met, others=others)
    return lambda method: set_prompts(method, chosen, name="vade")
