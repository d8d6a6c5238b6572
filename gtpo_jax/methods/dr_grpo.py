"""Dr.GRPO: GRPO without its two biases."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def dr_grpo_credit() -> credit.Credit:
    """`A[m, k] = r_m − mean_g(r)`: without the division, which favors easy and hard prompts."""
    return credit.chain(credit.total(), credit.centered(credit.first_turn))


dr_grpo_advantages = credit.as_function(dr_grpo_credit)


def dr_grpo(*, length: int = 1024) -> Method:
    """Dr.GRPO (arXiv 2503.20783): no division by the deviation or by the length.

    `A[m, k] = r_m − mean_g(r)`, loss `(1 / (n · length)) Σ_i Σ_t loss_it`.

    `length` is a constant, such as the token budget of a trajectory; it scales the gradient.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=dr_grpo_credit(),
        loss=losses.clipped(low=0.2, high=0.2),
        reduce=reductions.over_length(length),
    )
