"""DAPO: clip-higher, dynamic sampling, token mean and the overlong penalty."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, prompts, reductions, rewards


def dapo(
    *,
    low: float = 0.2,
    high: float = 0.28,
    rounds: int = 4,
    longest: int = 20480,
    buffer: int = 4096,
) -> Method:
    """DAPO (arXiv 2503.14476): GRPO with clip-higher, dynamic sampling and a penalty on length.

    `R = ±1 + clip((longest − buffer − |y|) / buffer, −1, 0)`, only groups with `0 < Σ success < n`.

    Deviation: a step takes at most `rounds` rollouts, where the paper samples until it is full.
    The paper's other treatment of long answers is `overlong_filter`.
    `longest` and `buffer` count tokens that the policy writes; the defaults are the paper's.
    """
    return Method(
        rewards={
            "outcome": rewards.outcome(right=1.0, wrong=-1.0),
            "overlong": rewards.overlong(longest, buffer=buffer),
        },
        credit=grpo_credit(),
        loss=losses.clipped(low=low, high=high),
        reduce=reductions.token_mean,
        prompts=prompts.unequal(rounds=rounds),
    )
