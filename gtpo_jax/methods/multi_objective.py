"""Multi-objective GRPO: a weighted sum of several scores."""

from __future__ import annotations

from collections.abc import Sequence

from gtpo_jax.methods.method import Method, Modifier, add_reward
from gtpo_jax.parts import rewards


def multi_objective(
    *, scores: rewards.ScoreTrajectory, weights: Sequence[float], replace: bool = True
) -> Modifier:
    """Multi-objective GRPO for safe models (arXiv 2503.21819): a weighted sum of several scores.

    `r_m = Σ_o weights_o · score_o(m)`, in place of the method's rewards, or added to them with
    `replace` false.

    `scores(trajectory)` gives the scores. In the paper they are four heads of a reward model:
    politeness, meaningfulness, actionability, safety. Unknown: its weights, so `weights` has no
    default. A sum lets one score pay for another; normalizing each score by itself prevents that.
    """
    part = rewards.scores(scores, weights)

    def modify(method: Method) -> Method:
        return add_reward(method._replace(rewards={}) if replace else method, "scores", part)

    return modify
