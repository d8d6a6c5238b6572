"""λ-GRPO: a token that several trajectories share counts once."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import spreads


def lambda_grpo() -> Modifier:
    """λ-GRPO (arXiv 2509.21154): a token that several trajectories of a group share counts once.

    `A'_it = A_it / |λ_it|`, with |λ_it| trajectories of the group whose tokens up to and including
    t are equal.

    GRPO weighs the step of a prefix tree by the number of trajectories through it; this takes it
    out. Deviations: trajectories of several turns share a token only if everything before it is
    equal, prompts and tool output included; a KL penalty is not divided, in the authors' code it
    is. The other "λ-GRPO" (2510.06870, learned weights of lengths) is no relative of this one.
    """
    return lambda method: method._replace(spread=spreads.once_for_shared(method.spread))
