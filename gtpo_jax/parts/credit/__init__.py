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
| `divided(credit, fact)` | result of `credit`, each group divided by a fact |
| `productive()`, `unlikely()` | x, scaled on the last turn of a success |
| `thoughts()` | x by the labels of turns |
| `plan_turn()` | score of the plan on the first turn, x on others |
| `left_out(fact)` | 0 on trajectories whose fact is true, x on others |

`chain`, `add` and `weighted` compose them. `discounted_returns` and `normalize` are the formulas of
their links as plain functions.
"""

from gtpo_jax.parts.credit.before_last import before_last
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
from gtpo_jax.parts.credit.discounted import (
    discounted,
    discounted_returns,
    discounted_returns_closed_form,
)
from gtpo_jax.parts.credit.divided import divided, divided_groups
from gtpo_jax.parts.credit.leave_one_out import leave_one_out
from gtpo_jax.parts.credit.left_out import left_out
from gtpo_jax.parts.credit.plan_turn import plan_scores, plan_turn
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
from gtpo_jax.parts.credit.successes import (
    likelihood_ranks,
    productive,
    productivity_factors,
    unlikely,
)
from gtpo_jax.parts.credit.thoughts import LabelTurns, thought_advantages, thoughts
from gtpo_jax.parts.credit.totals import last_reward, total

__all__ = [
    "SETS",
    "AdvantageFn",
    "Credit",
    "LabelTurns",
    "Set",
    "Traced",
    "add",
    "as_function",
    "batch",
    "batch_first_turn",
    "before_last",
    "centered",
    "chain",
    "dense_ids",
    "discounted",
    "discounted_returns",
    "discounted_returns_closed_form",
    "divided",
    "divided_groups",
    "equal_ids",
    "first_turn",
    "group",
    "last_reward",
    "leave_one_out",
    "left_out",
    "likelihood_ranks",
    "mean_over",
    "normalize",
    "plan_scores",
    "plan_turn",
    "productive",
    "productivity_factors",
    "same",
    "scaled",
    "standardized",
    "stateless",
    "thought_advantages",
    "thoughts",
    "total",
    "trace",
    "turn_index",
    "unlikely",
    "weighted",
]
