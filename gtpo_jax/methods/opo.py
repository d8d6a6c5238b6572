"""OPO: the baseline of least variance, a mean weighted by length."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit


def opo() -> Method:
    """OPO, On-Policy RL with Optimal reward baseline (arXiv 2505.23585).

    `A_i = r_i − Σ_j l_j r_j / Σ_j l_j` over the group, l_j the tokens that trajectory j wrote.

    Published: exact on-policy updates (one a step, where every ratio is 1), no KL and no entropy
    term. Deviations: the clip range of `grpo`, without effect on such updates; a group of one has
    A = 0, in verl's code r.
    """
    return grpo()._replace(credit=credit.chain(credit.total(), credit.minus_weighted_mean()))
