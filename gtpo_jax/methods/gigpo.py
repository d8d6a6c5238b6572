"""GiGPO: a second group, of turns that begin in the same state."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def gigpo_credit(
    *,
    step_weight: Scalar = 1.0,
    discount: Scalar = 0.95,
    divide_by_std: bool = False,
    ddof: int = 1,
    eps: Scalar = 1e-6,
) -> credit.Credit:
    """`A[m, k] = A_episode[m] + step_weight · A_step[m, k]`.

    `A_episode` is GRPO's advantage. `A_step` normalizes the discounted return of the turn over all
    turns of the group that begin in the same state.
    """
    scale = {"divide_by_std": divide_by_std, "ddof": ddof, "eps": eps}
    step = credit.chain(credit.discounted(discount), credit.among_anchors(**scale))
    return credit.add(grpo_credit(**scale), credit.weighted(step_weight, step))


def gigpo(
    *,
    step_weight: float = 1.0,
    discount: float = 0.95,
    divide_by_std: bool = False,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Method:
    """GiGPO (arXiv 2505.10978): also compares turns that begin in the same state with each other.

    `A[m, k] = A_episode[m] + step_weight · (R[m, k] − mean_s(R)) [/ std_s(R)]`, where s are the
    turns of the group with the same anchor and R discounted returns.

    Anchor: the problem and the tool output before the turn, which have to be equal; the released
    code can match similar texts as well. Deviations: a trajectory counts once in the episode
    statistics (the released code counts it once a turn by default), a group of one gets 0 (there
    its raw reward), and clip range, averaging and missing KL are those of `grpo`.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=gigpo_credit(
            step_weight=step_weight,
            discount=discount,
            divide_by_std=divide_by_std,
            ddof=ddof,
            eps=eps,
        ),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
