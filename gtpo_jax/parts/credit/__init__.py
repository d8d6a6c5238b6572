"""Credit: links that turn rewards of turns into advantages, and the sets of their statistics.

| link | value of turn k of trajectory m |
|---|---|
| `discounted(discount)` | `Σ_{j ≥ k} discount^(j−k) x[m, j]` |
| `total()` | `Σ_j x[m, j]` |
| `last_reward()` | x of the last turn of m |
| `standardized(over)` | `(x − mean) / (std + eps)` over a set |
| `centered(over)` | `x − mean` over a set |
| `scaled(over)` | `x / (std + eps)` over a set |
| `leave_one_out(over)` | `x − mean` of the others of a set |
| `before_last(credit)` | result of `credit` without last turns, 0 on them |
| `at_last(credit)` | result of `credit` on last turns alone, 0 on the others |
| `shared_by_entropy()` | total reward, shaped by the share of the group's entropy |
| `concentrated(rate)` | x times a weight of mean 1 that is larger for certain turns |
| `decoupled(credit)` | weighted sum of `credit` of each part of the reward |
| `learned_values()` | `Σ_{j ≥ k} (γλ)^(j−k) δ[m, j]` with a learned value head |

`chain`, `add` and `weighted` compose them. `discounted_returns` and `normalize` are the formulas of
their links as plain functions.
"""

from gtpo_jax.parts.credit.at_last import at_last
from gtpo_jax.parts.credit.before_last import before_last
from gtpo_jax.parts.credit.concentrated import certainty_weights, concentrated
from gtpo_jax.parts.credit.credit import (
    AdvantageFn,
    Credit,
    Traced,
    add,
    as_function,
    chain,
    stateless,
    trace,
    weighted,
)
from gtpo_jax.parts.credit.decoupled import decoupled
from gtpo_jax.parts.credit.discounted import (
    discounted,
    discounted_returns,
    discounted_returns_closed_form,
)
from gtpo_jax.parts.credit.entropy_shares import (
    mixed_groups,
    shared_by_entropy,
    shared_rewards,
)
from gtpo_jax.parts.credit.leave_one_out import leave_one_out
from gtpo_jax.parts.credit.recurring import dense_ids, equal_ids, mean_over, same
from gtpo_jax.parts.credit.sets import (
    SETS,
    Set,
    batch,
    batch_first_turn,
    first_turn,
    group,
    turn_index,
)
from gtpo_jax.parts.credit.standardized import centered, normalize, scaled, standardized
from gtpo_jax.parts.credit.totals import last_reward, total
from gtpo_jax.parts.credit.value_head import ValueHead, gae, learned_values

__all__ = [
    "SETS",
    "AdvantageFn",
    "Credit",
    "Set",
    "Traced",
    "ValueHead",
    "add",
    "as_function",
    "at_last",
    "batch",
    "batch_first_turn",
    "before_last",
    "centered",
    "certainty_weights",
    "chain",
    "concentrated",
    "decoupled",
    "dense_ids",
    "discounted",
    "discounted_returns",
    "discounted_returns_closed_form",
    "equal_ids",
    "first_turn",
    "gae",
    "group",
    "last_reward",
    "learned_values",
    "leave_one_out",
    "mean_over",
    "mixed_groups",
    "normalize",
    "same",
    "scaled",
    "shared_by_entropy",
    "shared_rewards",
    "standardized",
    "stateless",
    "total",
    "trace",
    "turn_index",
    "weighted",
]
