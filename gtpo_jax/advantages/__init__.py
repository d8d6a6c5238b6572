"""Advantages of turns: one idea a function, one signature for all.

    advantages(turn_rewards [M, K], turn_mask [M, K], group_ids [M], included [M],
               **hyperparameters) → turn_advantages [M, K]

Rows with `included` False enter no baseline and have advantage 0. Advantages are constants of the
objective: every function stops their gradient.
"""

from gtpo_jax.advantages.grpo import grpo_advantages
from gtpo_jax.advantages.gtpo import gtpo_advantages
from gtpo_jax.advantages.normalize import normalize_within_groups

__all__ = ["grpo_advantages", "gtpo_advantages", "normalize_within_groups"]
