"""BRPO: rewards for being right at any budget of turns."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def brpo(
    *,
    prior: Literal["uniform", "linear", "base"] = "uniform",
    scores: rewards.TrajectoryReward | None = None,
) -> Method:
    """BRPO of AnytimeReasoner (arXiv 2505.13438): rewards at every budget, with two baselines.

    `A[m, s] = R_s − (s V1_s + (S − s) V2_s) / S`, `R_s = Σ_{j ≥ s} p_j score_j`, for turn s from 0
    of S, where `V1_s = (Σ_{j<s} 2^j score_j / Σ_{j<s} 2^j) Σ_{j ≥ s} p_j` comes from the row's own
    earlier scores and `V2_s = mean_g(R_s)`.

    `score_j` is that of an answer given after turn j, and the outcome for the last turn. The paper
    asks for it at every budget; here it is the last line that the tool has printed by then, or
    `scores`, a function of a trajectory to one score for each turn. `prior` p over budgets:
    uniform, linear, or base (all on the last turn). Deviations: budgets count turns, the paper's
    count tokens; S counts the turns of the longest row of the group, and a shorter row keeps its
    last score; the answers at the budgets get no gradient (there each is compared with others at
    its budget); a group of one gets `V2 = R` (in the released code 0).
    """
    own = rewards.own("scores", scores) if scores is not None else None
    return Method(
        rewards={
            "outcome": rewards.outcome(),
            "format": rewards.forfeit(),
            "scores": rewards.budget_scores(own),
        },
        credit=credit.over_budgets(prior),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
