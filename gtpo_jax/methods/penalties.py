"""Modifiers that add a term to the loss or a part to the reward."""

from __future__ import annotations

from typing import Annotated

from gtpo_jax.maths import checks, divergences
from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import losses, rewards


def kl(
    *,
    weight: float = 0.001,
    estimator: Annotated[divergences.Estimator, divergences.ESTIMATORS] = divergences.kl_k3,
) -> Modifier:
    """A penalty on the divergence from the policy that training began with (GRPO's is k3).

    `loss + weight · KL(π ‖ π_ref)` per token; keeps a copy of the trained parameters.
    """
    term = losses.divergence(weight, estimator)
    return lambda method: method._replace(loss=losses.add(method.loss, term))


def entropy_bonus(*, weight: float = 0.001) -> Modifier:
    """A bonus for the entropy of the policy.

    `loss − weight · H` per token, in nats.
    """
    checks.check_range(
        "weight", weight, 0.0, float("inf"), hint="it weighs a bonus, 0.001 is usual"
    )
    return lambda method: method._replace(loss=losses.add(method.loss, losses.entropy(-weight)))


def overlong(*, longest: int, buffer: int) -> Modifier:
    """DAPO's penalty for long responses (arXiv 2503.14476, Eq. 13), added to the other rewards.

    `r + clip((longest − buffer − |y|) / buffer, −1, 0)` on the last turn, with |y| tokens written.
    """
    part = rewards.overlong(longest, buffer=buffer)
    return lambda method: add_reward(method, "overlong", part)


def reward(*, function: rewards.TrajectoryReward, weight: float = 1.0, name: str = "") -> Modifier:
    """A reward of your own, `function(trajectory) → float`, or one number for each turn.

    `r + weight · function(trajectory)`; `name` is the name of the part, by default the function's.
    """
    part_name = name or function.__name__
    part = rewards.own(part_name, function, weight=weight)
    return lambda method: add_reward(method, part_name, part)
