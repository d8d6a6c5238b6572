"""ReMax: the reward of the greedy answer is the baseline."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, plans, reductions, rewards


def remax() -> Method:
    """ReMax (arXiv 2310.10505): each trajectory's reward minus that of a greedy rollout.

    `A[m, k] = r_m − r_greedy` for all turns, where the greedy rollout takes the likeliest token at
    every step. It does not depend on the sample, so the gradient stays unbiased.

    A group is `size` samples and the greedy twin, which is not trained; the paper takes one sample
    a prompt. Deviations: the surrogate is clipped as in `rloo`, and the reward is that of the
    outcome, without the paper's divergence in the reward (`+ kl weight=…` adds one to the loss). A
    greedy rollout of unknown outcome leaves its group without advantages.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.chain(credit.total(), credit.over_greedy()),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
        plan=plans.greedy_twin(),
    )
