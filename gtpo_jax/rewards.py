"""Rewards of turns: the outcome, the format, and partial credit for failures that
resemble a success.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking, turns
from gtpo_jax.types import Scalar


def outcome_rewards(
    outcomes: Float[Array, " M"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, "M K"]:
    """The outcome of a trajectory on its last turn, 0 on the others."""
    return jnp.where(turns.last_turns(turn_mask), outcomes[:, None], 0.0)


def format_rewards(
    violations: Bool[Array, "M K"], turn_mask: Bool[Array, "M K"], *, penalty: Scalar
) -> Float[Array, "M K"]:
    """`−penalty` on every turn that broke the dialogue's rules, 0 on the others."""
    checks.check_turns(turn_mask=turn_mask, violations=violations)
    checks.check_masks(turn_mask=turn_mask, violations=violations)
    checks.check_range(
        "penalty", penalty, 0.0, float("inf"), hint="it is taken away, so pass its magnitude"
    )
    return jnp.where(violations & turn_mask, -penalty, 0.0)


def shaped_outcomes(
    success: Bool[Array, " M"],
    included: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    similarity: Float[Array, "M M"],
    *,
    weight: Scalar,
    floor: Scalar = 0.0,
) -> Float[Array, " M"]:
    """1 for a success, and for a failure the credit of Sec. 3.4 of the paper:

    `r_i = (weight / |P|) Σ_{p ∈ P} max(similarity[i, p], floor)`, P = successes of the same group.

    P empty gives 0. With `weight` < 1 a failure stays below every success. `floor` 0 clips negative
    similarities, −1 keeps them: which of the two the paper does is unknown. Excluded trajectories
    neither give nor get credit.
    """
    count = len(success)
    checks.check_trajectories(count, included=included, group_ids=group_ids)
    checks.check_masks(success=success, included=included)
    checks.check_range("weight", weight, 0.0, 1.0, hint="below 1 a failure stays below a success")
    checks.check_range("floor", floor, -1.0, 1.0, hint="0 clips negative cosines, -1 keeps them")
    if jnp.shape(similarity) != (count, count):
        raise ValueError(
            f"similarity must compare all {count} trajectories with each other,"
            f" got shape {jnp.shape(similarity)}; `cosine_similarity(embeddings)` has the right one"
        )
    same_group = group_ids[:, None] == masking.everywhere(group_ids)
    peers = same_group & masking.everywhere(success & included)
    counted = jnp.maximum(similarity.astype(jnp.float32), floor)
    credit = jnp.sum(jnp.where(peers, counted, 0.0), axis=1)
    credit = weight * credit / jnp.maximum(jnp.sum(peers, axis=1), 1)
    # Rounding may lift a cosine above 1, and with it a failure above `weight`.
    credit = jnp.minimum(credit, weight)
    return jnp.where(included, jnp.where(success, 1.0, credit), 0.0)


def gtpo_rewards(
    outcomes: Float[Array, " M"],
    violations: Bool[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    *,
    format_penalty: Scalar = 0.1,
) -> Float[Array, "M K"]:
    """`r[m, k] = r_accuracy[m, k] + r_format[m, k]` (GTPO, Eq. 5)."""
    accuracy = outcome_rewards(outcomes, turn_mask)
    return accuracy + format_rewards(violations, turn_mask, penalty=format_penalty)


def grpo_rewards(
    success: Bool[Array, " M"], violations: Bool[Array, "M K"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, "M K"]:
    """The paper's GRPO baseline: `min(r_accuracy, r_format)` in {0, 1}, written on the
    last turn.
    """
    well_formed = ~jnp.any(violations & turn_mask, axis=1)
    return outcome_rewards(jnp.asarray(success & well_formed, jnp.float32), turn_mask)
