"""SEED-GRPO: smaller steps on problems whose answers disagree."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def seed_grpo(
    *,
    alpha: float = 0.0417,
    estimator: Literal["rao", "mean"] = "rao",
    form: Literal["reciprocal", "linear"] = "reciprocal",
) -> Modifier:
    """SEED-GRPO (arXiv 2505.12346): smaller advantages where the answers of a group disagree.

    `A'[m, k] = A[m, k] / (1 + alpha · SE / log G)` for a group of G trajectories, with the semantic
    entropy `SE = −Σ_C p(C) log p(C)` of its final answers C and
    `p(C) = Σ_{i ∈ C} exp(l_i) / Σ_i exp(l_i)`, where l is the mean log-prob of a trajectory.

    Defaults are the reference code's. The paper prints another estimator (`mean`,
    `−(1 / n) Σ_C log p(C)` over n clusters) and says that f is linear with alpha .02; `linear`,
    `A' = A · max(1 − alpha · SE / log G, 0)`, is our reading of it. The paper applies it to
    advantages without deviation (`dr_grpo`). Deviation: equal answers are equal texts. A trajectory
    without an answer is a cluster of its own.
    """
    link = credit.less_if_uncertain(alpha=alpha, estimator=estimator, form=form)
    return lambda method: add_link(method, link)
