"""Modifiers that choose what weighs the same, and which groups are trained on."""

from __future__ import annotations

import functools
from typing import Literal

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import prompts, reductions


def reduce(
    *, over: Literal["token", "sequence", "turn", "constant"] = "token", length: int = 1024
) -> Modifier:
    """How one number is made of the loss per token: which tokens weigh the same.

    `token`: every token; `sequence`, `turn`: every unit, its tokens by their mean; `constant`:
    every token, divided by the number of trajectories times `length` (used by `constant` alone).
    """
    reduction = {
        "token": reductions.token_mean,
        "sequence": reductions.sequence_mean,
        "turn": reductions.turn_mean,
        "constant": functools.partial(reductions.constant_length, length=length),
    }[over]
    return lambda method: method._replace(reduce=reduction)


def dynamic_sampling(*, rounds: int = 4) -> Modifier:
    """Dynamic sampling (DAPO, arXiv 2503.14476): further problems replace groups of equal outcomes.

    `0 < Σ_i success_i < n` over the included trajectories of a group keeps it; at most `rounds`
    rollouts a step.
    """
    source = prompts.unequal(rounds=rounds)
    return lambda method: method._replace(prompts=source)
