"""Checks of the inputs of every advantage function, in one place."""

from __future__ import annotations

import jax

from gtpo_jax.maths import checks


def check_inputs(
    turn_rewards: jax.Array, turn_mask: jax.Array, group_ids: jax.Array, included: jax.Array
) -> None:
    """Raises unless rewards and mask are `[M, K]`, the others `[M]`, and masks boolean."""
    checks.check_turns(turn_rewards=turn_rewards, turn_mask=turn_mask)
    checks.check_trajectories(len(turn_rewards), group_ids=group_ids, included=included)
    checks.check_masks(turn_mask=turn_mask, included=included)
