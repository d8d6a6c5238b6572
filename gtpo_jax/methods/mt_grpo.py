"""MT-GRPO: the outcome on every turn, plus each turn's own reward."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def mt_grpo_credit(
    *, turn_weight: Scalar = 1.0, ddof: int = 0, eps: Scalar = 1e-6
) -> credit.Credit:
    """`A[m, k] = A_outcome[m] + turn_weight · A_turn[m, k]`, the second part not on the last turn.

    `A_outcome` normalizes the reward of the last turn within the group, `A_turn` that of turn k
    within turn k of the group. Rewards are not discounted, and a turn gets no share of later
    rewards.

    The paper has two turns, and this is its formula for them. For more turns, adding each turn's
    own reward is our reading. So is the trajectory of a single turn, whose only reward is the
    outcome.
    """
    scale = {"ddof": ddof, "eps": eps}
    outcome = credit.chain(credit.last_reward(), credit.standardized(credit.first_turn, **scale))
    turn = credit.before_last(credit.standardized(credit.turn_index, **scale))
    return credit.add(outcome, credit.weighted(turn_weight, turn))


mt_grpo_advantages = credit.as_function(mt_grpo_credit)


def mt_grpo(
    *,
    turn_weight: float = 1.0,
    format_penalty: float = 0.1,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Method:
    """MT-GRPO (arXiv 2505.11821): the outcome on all turns, plus each earlier turn's reward.

    `A[m, k] = A_outcome[m] + turn_weight · A_turn[m, k]`, each normalized within its own set.

    Deviation: the reward of a turn is the format penalty; the paper rewards one search call.
    """
    return Method(
        rewards={
            "outcome": rewards.outcome(),
            "format": rewards.format_penalty(format_penalty),
        },
        credit=mt_grpo_credit(turn_weight=turn_weight, ddof=ddof, eps=eps),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
