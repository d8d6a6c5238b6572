"""Modifiers that choose what weighs the same, and which groups are trained on."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import prompts, reductions


def reduce(
    *, over: Literal["token", "sequence", "turn", "constant"] = "token", length: int = 1024
) -> Modifier:
    """How one number is made of the loss per token: which tokens weigh the same.

    `Σ_t loss_t / Σ_t 1` for `token`. `sequence` and `turn` weigh units alike, the tokens of each by
    their mean; `constant` divides by the number of trajectories times `length`.
    """
    reduction = {
        "token": reductions.token_mean,
        "sequence": reductions.sequence_mean,
        "turn": reductions.turn_mean,
        "constant": reductions.over_length(length),
    }[over]
    return lambda method: method._replace(reduce=reduction)


def dynamic_sampling(*, rounds: int = 4) -> Modifier:
    """Dynamic sampling (DAPO, arXiv 2503.14476): further problems replace groups of equal outcomes.

    `0 < Σ_i success_i < n` over the included trajectories of a group keeps it; at most `rounds`
    rollouts a step.
    """
    source = prompts.unequal(rounds=rounds)
    return lambda method: method._replace(prompts=source)
