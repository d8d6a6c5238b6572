"""OPMD and AsymRE: REINFORCE regularized by an added term, which leaves no trace but a baseline."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method
from gtpo_jax.methods.rec import rec
from gtpo_jax.parts import credit
from gtpo_jax.parts.losses import Loss, PolicyTerm, Reinforce


def opmd(*, tau: float = 1.0, baseline: Literal["mean", "log_mean_exp"] = "mean") -> Method:
    """OPMD (arXiv 2505.17826; REP of 2509.24203): REINFORCE damped by a squared regularizer.

    `−(r − b) log π / (1 + tau)`, b the mean of the group or `tau · log mean_g exp(r / tau)`.

    Published: tau 1, mean (Trinity-RFT). No ratio and no clip: samples may be old. Deviation: a
    group of one has A = 0, in the authors' code r.
    """
    checks.check_range("tau", tau, 0.0, float("inf"), hint="1 is the authors', 0 is REINFORCE")
    links = {
        "mean": credit.standardized(credit.first_turn, divide_by_std=False),
        "log_mean_exp": credit.minus_log_mean_exp(tau) if tau > 0 else None,
    }
    link = links[baseline]
    if link is None:
        raise ValueError("baseline=log_mean_exp needs tau > 0; use baseline=mean with tau=0")
    surrogate = Reinforce(sides="none", scale=1.0 / (1.0 + tau))
    return rec()._replace(
        credit=credit.chain(credit.total(), link), loss=Loss((PolicyTerm(surrogate),))
    )


def asymre(*, shift: float = -0.1) -> Method:
    """AsymRE (arXiv 2506.20520; REP of 2509.24203): REINFORCE with a shifted baseline.

    `−(r − mean_g(r) − shift) log π`: a baseline below the mean makes failures count less, and the
    likelihood of all samples rise a little.

    Published: shift −.1 (Trinity-RFT). Groups of equal rewards have the advantage −shift.
    """
    method = rec(sides="none")
    return method._replace(credit=credit.chain(method.credit, credit.raised(-shift)))
