"""GRPO-LEAD: shorter successes earn more, rare outcomes weigh more."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, add_link, wrap_reward
from gtpo_jax.parts import credit, rewards


def grpo_lead(
    *,
    weight: float = 0.05,
    wrong: float = -1.0,
    shortest: float = 0.0,
    lowest: float = 0.4,
    highest: float = 1.5,
    steepness: float = 10.0,
    center: float = 0.75,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Modifier:
    """GRPO-LEAD (arXiv 2504.09696): short successes earn more, and hard problems weigh more.

    `A' = A · w(p)` for A > 0, else `A · w(1 − p)`, with the success rate p of the group and
    `w(p) = lowest + (highest − lowest) / (1 + exp(steepness · (p − center)))`; a success earns
    `exp(−weight · z)`, z its length normalized over the successes of the group, a failure `wrong`.

    It replaces the reward `outcome`. Deviations: the released code skips the length term in groups
    whose three shortest rows have at most 4000 tokens on average; `shortest=4000` does so, the
    default never skips it, since responses are short here. A success that breaks the rules keeps
    its outcome, from which the method's own format reward takes; there it earns −1.
    """
    outcome = rewards.scaled_outcome(
        weight=weight, wrong=wrong, shortest=shortest, ddof=ddof, eps=eps
    )
    weigh = credit.times_difficulty(
        lowest=lowest, highest=highest, steepness=steepness, center=center
    )

    def modify(method: Method) -> Method:
        return add_link(wrap_reward(method, "outcome", lambda _: outcome), weigh)

    return modify
