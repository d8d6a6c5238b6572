"""CRAFT-GUI: the rule's reward, and the score of a judge."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import rewards


def craft_gui(*, judge: rewards.TrajectoryReward, weight: float = 1.0) -> Modifier:
    """CRAFT-GUI (arXiv 2508.11360): a model's judgment adds to the reward of the rules.

    `r_m + weight · judge(m)`, where `r_m` is the method's own reward, that of the rules.

    `judge(trajectory)` gives a number, or one for each turn. The paper's rules compare the type
    and the arguments of an action on a screen. Its curriculum over buckets of difficulty
    is `difficulty_buckets`.

    Unknown: the weights (`weight` is chosen), the number of buckets, and when to switch.
    """
    part = rewards.own("judge", judge, weight=weight)
    return lambda method: add_reward(method, "judge", part)
