"""Turn-level Vine: values of turn boundaries by fresh rollouts, and their differences."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, plans, reductions, rewards


def vine(*, rollouts: int = 9, length: int = 1024, turns: int = 4) -> Method:
    """VinePPO (arXiv 2410.01679) with turns as steps: each turn gets the change of the value.

    `A[m, k] = V(s[m, k+1]) − V(s[m, k])`, where s[m, k] is the dialogue before turn k, V the mean
    success of `rollouts` fresh samples from it, and V after the last turn the outcome. The samples
    depend on nothing after their boundary, so the update is unbiased, whatever their number; it is
    the standard that other credits are held to, at the price of `1 + rollouts · turns` samples a
    trajectory. Turns before a boundary come from its cache.

    Published: 9 rollouts, steps of reasoning in place of turns, no discount. Deviations: the reward
    is the outcome alone, for values are estimates of it; the loss is a sum over tokens divided by
    the constant `length`, because the token mean would bias it. `turns` only serves the plan's
    estimate of its cost.
    """
    return Method(
        rewards={"outcome": rewards.outcome()},
        credit=credit.value_differences(),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.over_length(length),
        plan=plans.valued(rollouts=rollouts, turns=turns),
    )
