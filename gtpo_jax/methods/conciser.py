"""ConciseR: groups that are all right learn to be short."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, add_reward
from gtpo_jax.parts import prompts, rewards


def conciser(*, weight: float = 1.0, longest: int = 4096) -> Modifier:
    """ConciseR's L-GRPO (arXiv 2505.21178): groups that are all right learn to be short.

    `r_m + weight · all_right_g · max(1 − L_m / longest, 0)` with `L_m` tokens written; `all_right`
    is 1 where every included row of the group is right, else 0.

    It is the second stage; the first is clip-higher with dynamic sampling. Dynamic sampling drops
    the very groups that this rewards, so the two together are refused.

    Our reading: the form of the term. Established is only that it needs all rows right. `weight`
    and `longest` are chosen; where rewards are standardized within the group, neither matters
    for responses shorter than `longest`.
    """
    part = rewards.weighted(weight, rewards.concise(longest))

    def modify(method: Method) -> Method:
        if method.prompts.has_signal is prompts.unequal_outcomes:
            raise ValueError(
                "conciser rewards groups that are all right, and dynamic sampling drops them;"
                " choose a method without it, such as grpo"
            )
        return add_reward(method, "concise", part)

    return modify
