"""Modifiers that choose the averaging of the loss and the groups that are trained on."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import prompts, reductions


def reduce(
    *, over: Literal["token", "sequence", "turn", "constant"] = "token", length: int = 1024
) -> Modifier:
    """The reduction of the loss per token to one number: which units weigh equally.

    `Σ_t loss_t / Σ_t 1` for `token`. `sequence` and `turn` weigh their units equally, with the mean
    over the tokens of each; `constant` divides by the number of trajectories times `length`.
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

    A group is kept if `0 < Σ_i success_i < n` over its included trajectories; at most `rounds`
    rollouts per step. Further problems are the next ones that the method's prompts propose.
    """
    prompts.check_rounds(rounds)
    return lambda method: method._replace(prompts=prompts.unequal(method.prompts, rounds=rounds))
