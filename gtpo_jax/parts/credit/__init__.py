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
| `ranked()` | `Σ_{j ≥ k} x[m, j] / log2(j + 1)` |
| `standardized_by_rank()` | `(x − mean) / (std + eps)` over turn k, missing turns counted as 0 |
| `minus_tracked_value()` | `x −` the success rate of the problem in earlier steps |
| `over_budgets()` | x as scores at each budget of turns, minus two baselines |
| `among_anchors()` | `x − mean` over turns of the group that begin in the same state |
| `among_histories()` | `(x − mean) / (std + eps)` over turns with the same history |
| `mean_of_transitions()` | mean over turns with the same state, action and next state |
| `at_last(credit)` | result of `credit` on last turns alone, 0 on the others |
| `shared_by_entropy()` | total reward, shaped by the share of the group's entropy |
| `concentrated(rate)` | x times a weight of mean 1 that is larger for certain turns |
| `decoupled(credit)` | weighted sum of `credit` of each part of the reward |
| `learned_values()` | `Σ_{j ≥ k} (γλ)^(j−k) δ[m, j]` with a learned value head |
| `divided(credit, fact)` | result of `credit`, each group divided by a fact |
| `productive()`, `unlikely()` | x, scaled on the last turn of a success |
| `thoughts()` | x by the labels of turns |
| `plan_turn()` | score of the plan on the first turn, x on others |
| `preferred()` | 1 if it passes a filter, −1 if another of the group does |
| `left_out(fact)` | 0 on trajectories whose fact is true, x on others |

Modifiers add one of these at the end of a credit, or before it:

| link | changes |
|---|---|
| `less_if_uncertain()` | advantages of groups whose answers disagree |
| `over_relative_entropy()`, `entropy_bonus()` | by the entropy of the trajectory |
| `times_alignment()`, `times_hardness()`, `times_difficulty()` | by factors of trajectories |
| `over_parent()`, `second_layer()` | advantages of corrections |
| `nothing()` | all advantages, to 0 |
| `silence_equal_groups()` | groups of equal outcomes, to 0 |
| `softened()`, `anchored(credit)` | rewards near the best one; responses from elsewhere |

`chain`, `add` and `weighted` compose them. `discounted_returns` and `normalize` are the formulas of
their links as plain functions.
"""

from gtpo_jax.parts.credit.alike import among_anchors, among_histories, mean_of_transitions
from gtpo_jax.parts.credit.balanced import balanced
from gtpo_jax.parts.credit.baselines import (
    minus_log_mean_exp,
    minus_weighted_mean,
    positive,
    raised,
)
from gtpo_jax.parts.credit.budgets import budget_advantages, over_budgets
from gtpo_jax.parts.credit.causal import causal_alignment, times_alignment
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
from gtpo_jax.parts.credit.difficulty import difficulty_weights, times_difficulty
from gtpo_jax.parts.credit.discounted import (
    discounted,
    discounted_returns,
    discounted_returns_closed_form,
)
from gtpo_jax.parts.credit.divided import divided, divided_groups
from gtpo_jax.parts.credit.entropies import bounded_bonus, entropy_bonus, over_relative_entropy
from gtpo_jax.parts.credit.entropy_shares import mixed_groups, shared_by_entropy, shared_rewards
from gtpo_jax.parts.credit.guided import OFF_POLICY, anchored, softened, softened_rewards
from gtpo_jax.parts.credit.hardness import (
    DEMONSTRATION_DISTANCE,
    DEMONSTRATION_GAP,
    data_hardness,
    model_hardness,
    times_hardness,
)
from gtpo_jax.parts.credit.last_turns import at_last, before_last
from gtpo_jax.parts.credit.layers import over_parent, second_layer
from gtpo_jax.parts.credit.leave_one_out import leave_one_out
from gtpo_jax.parts.credit.left_out import left_out
from gtpo_jax.parts.credit.max_variance import max_variance_rows, most_varied
from gtpo_jax.parts.credit.plan_turn import plan_scores, plan_turn
from gtpo_jax.parts.credit.preferred import CONSISTENT, REPETITION, preferences, preferred
from gtpo_jax.parts.credit.ranked import rank_returns, ranked, standardized_by_rank
from gtpo_jax.parts.credit.recurring import (
    dense_ids,
    equal_ids,
    histories,
    mean_over,
    same,
    transitions,
)
from gtpo_jax.parts.credit.rows import ROW_SETS, mean_of_tokens, row_moments, times
from gtpo_jax.parts.credit.semantic import certainty_factors, less_if_uncertain, semantic_entropy
from gtpo_jax.parts.credit.sets import (
    SETS,
    Set,
    batch,
    batch_first_turn,
    first_turn,
    group,
    turn_index,
)
from gtpo_jax.parts.credit.silence import nothing, silence_equal_groups
from gtpo_jax.parts.credit.standardized import centered, normalize, scaled, standardized
from gtpo_jax.parts.credit.successes import (
    likelihood_ranks,
    productive,
    productivity_factors,
    unlikely,
)
from gtpo_jax.parts.credit.thoughts import LabelTurns, thought_advantages, thoughts
from gtpo_jax.parts.credit.totals import last_reward, total
from gtpo_jax.parts.credit.tracked import Tracker, minus_tracked_value, retention
from gtpo_jax.parts.credit.value_head import ValueHead, gae, learned_values

__all__ = [
    "CONSISTENT",
    "DEMONSTRATION_DISTANCE",
    "DEMONSTRATION_GAP",
    "OFF_POLICY",
    "REPETITION",
    "ROW_SETS",
    "SETS",
    "AdvantageFn",
    "Credit",
    "LabelTurns",
    "Set",
    "Traced",
    "Tracker",
    "ValueHead",
    "add",
    "among_anchors",
    "among_histories",
    "anchored",
    "as_function",
    "at_last",
    "balanced",
    "batch",
    "batch_first_turn",
    "before_last",
    "bounded_bonus",
    "budget_advantages",
    "causal_alignment",
    "centered",
    "certainty_factors",
    "certainty_weights",
    "chain",
    "concentrated",
    "data_hardness",
    "decoupled",
    "dense_ids",
    "difficulty_weights",
    "discounted",
    "discounted_returns",
    "discounted_returns_closed_form",
    "divided",
    "divided_groups",
    "entropy_bonus",
    "equal_ids",
    "first_turn",
    "gae",
    "group",
    "histories",
    "last_reward",
    "learned_values",
    "leave_one_out",
    "left_out",
    "less_if_uncertain",
    "likelihood_ranks",
    "max_variance_rows",
    "mean_of_tokens",
    "mean_of_transitions",
    "mean_over",
    "minus_log_mean_exp",
    "minus_tracked_value",
    "minus_weighted_mean",
    "mixed_groups",
    "model_hardness",
    "most_varied",
    "normalize",
    "nothing",
    "over_budgets",
    "over_parent",
    "over_relative_entropy",
    "plan_scores",
    "plan_turn",
    "positive",
    "preferences",
    "preferred",
    "productive",
    "productivity_factors",
    "raised",
    "rank_returns",
    "ranked",
    "retention",
    "row_moments",
    "same",
    "scaled",
    "second_layer",
    "semantic_entropy",
    "shared_by_entropy",
    "shared_rewards",
    "silence_equal_groups",
    "softened",
    "softened_rewards",
    "standardized",
    "standardized_by_rank",
    "stateless",
    "thought_advantages",
    "thoughts",
    "times",
    "times_alignment",
    "times_difficulty",
    "times_hardness",
    "total",
    "trace",
    "transitions",
    "turn_index",
    "unlikely",
    "weighted",
]
