"""Masks against a sampler that differs from the learner: IcePop, KPop, and rejection in general."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier, correct_policy_term
from gtpo_jax.parts.losses import Acceptance, Measure, Unit


def icepop(*, low: float = 0.5, high: float = 5.0) -> Modifier:
    """IcePop (arXiv 2510.18855): tokens whose probabilities disagree too much leave the loss.

    `w = k 1[low ≤ k ≤ high]`, `k = π₀ / μ` of the token, times the surrogate of `π / π₀`; turns on
    `recompute`.

    Published: .5 and 5. A token that leaves still counts in the mean, as in the authors' code.
    """
    correction = Acceptance(low=low, high=high, weigh_ratio=True)
    return lambda method: correct_policy_term(method, correction, name="icepop")


def kpop(*, limit: float = 2.0) -> Modifier:
    """KPop (Ring 2.6, ringtech.notion.site/kpop): a mask that widens for unlikely tokens.

    `w = 1[KL(π₀ ‖ μ) ≤ limit] 1[KL(μ ‖ π₀) ≤ limit]`, both over the two events "this token" and
    "another", times the surrogate of `π / π₀`; turns on `recompute`.

    Published: the mask, and limits from .1 to 2 (.75 for mathematics, 2 for code and logic); the
    one of Ring 2.6 is unknown, 2 is AReaL's. Whether the ratio weighs the tokens that stay is not
    stated: here it does not; `+ importance` adds such weights.
    """
    correction = Acceptance(measure="binary_kl", high=limit)
    return lambda method: correct_policy_term(method, correction, name="kpop")


def rejection(
    *,
    unit: Unit = "sequence",
    measure: Measure = "ratio",
    low: float = 0.5,
    high: float = 2.0,
    over: Literal["mean", "sum", "max"] = "mean",
) -> Modifier:
    """Rejects tokens, turns or sequences that the learner would not have written (verl, AReaL).

    `w = 1[low ≤ m ≤ high]` times the surrogate of `π / π₀`; turns on `recompute`. The measure m is
    the ratio `π₀ / μ`, `k2 = (log r)² / 2`, `k3 = r − 1 − log r`, or `binary_kl` (see `kpop`). For
    a turn or a sequence it is the mean, the sum or the largest of its trained tokens; ratios are
    averaged as logarithms, so `over=sum` is their product.

    Published: the masks of verl's rollout correction and of AReaL, without turns, which are our
    own; usual bounds of the mean ratio of a sequence are .999 and 1.002. Deviation: what is
    rejected still counts in the mean of the loss; verl takes it out of the count.
    """
    if measure != "ratio":
        low = 0.0  # a divergence has no lower bound
    correction = Acceptance(measure=measure, low=low, high=high, unit=unit, how=over)
    return lambda method: correct_policy_term(method, correction, name="rejection")
