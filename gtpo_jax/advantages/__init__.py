"""Advantages of turns: one idea a function, one signature for all.

    advantages(turn_rewards [M, K], turn_mask [M, K], group_ids [M], included [M],
               **hyperparameters) → turn_advantages [M, K]

Rows with `included` False enter no baseline and have advantage 0. Advantages are constants of the
objective: every function stops their gradient.

| function | baseline | scale | differs between turns |
|---|---|---|---|
| `gtpo_advantages` | mean return of the group's turns | their std | yes |
| `grpo_advantages` | mean reward of the group | its std | no |
| `dr_grpo_advantages` | mean reward of the group | none | no |
| `rloo_advantages` | mean reward of the group's others | none | no |
| `mt_grpo_advantages` | mean outcome, mean reward of the turn index | their stds | yes |
| `reinforce_plus_plus_advantages` | mean return of the batch | its std | yes |
| `reinforce_plus_plus_baseline_advantages` | mean reward of the group | std over the batch | no |
"""

from gtpo_jax.advantages.grpo import dr_grpo_advantages, grpo_advantages
from gtpo_jax.advantages.gtpo import gtpo_advantages
from gtpo_jax.advantages.mt_grpo import mt_grpo_advantages
from gtpo_jax.advantages.normalize import (
    NormalizeFn,
    normalize_by_first_turn,
    normalize_over_batch,
    normalize_within_groups,
    normalize_within_turn_index,
)
from gtpo_jax.advantages.reinforce import (
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
)
from gtpo_jax.advantages.rloo import rloo_advantages

__all__ = [
    "NormalizeFn",
    "dr_grpo_advantages",
    "grpo_advantages",
    "gtpo_advantages",
    "mt_grpo_advantages",
    "normalize_by_first_turn",
    "normalize_over_batch",
    "normalize_within_groups",
    "normalize_within_turn_index",
    "reinforce_plus_plus_advantages",
    "reinforce_plus_plus_baseline_advantages",
    "rloo_advantages",
]
