"""CISPO: the weight of a token is clipped, its gradient is not."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def cispo(*, low: float = 1.0, high: float = 0.28) -> Method:
    """CISPO (arXiv 2506.13585): every token keeps its gradient, only its weight is bounded.

    `loss = −sg(clip(ρ, 1 − low, 1 + high)) A log π` with GRPO's advantages; `low` 1 turns off the
    lower bound.

    Unknown: the value of the upper bound; here it is DAPO's.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=grpo_credit(),
        loss=losses.cispo(low=low, high=high),
        reduce=reductions.token_mean,
    )
