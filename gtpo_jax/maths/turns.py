"""Maps between tokens and turns: a value of a turn applies to each token that the policy wrote."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gtpo_jax.maths import masking


def turn_ids_from_starts(
    loss_mask: Bool[Array, "B T"], turn_starts: Bool[Array, "B T"]
) -> Int[Array, "B T"]:
    """Index of the turn of each policy token, −1 elsewhere.

    `turn_starts` marks the first token of each turn: two turns with an empty observation between
    them are adjacent in `loss_mask`, and only their starts separate them.
    """
    index = jnp.cumsum(turn_starts & loss_mask, axis=1, dtype=jnp.int32) - 1
    return jnp.where(loss_mask, index, -1)


def turn_ids_from_spans(
    starts: Int[Array, "B K"], ends: Int[Array, "B K"], turn_mask: Bool[Array, "B K"], length: int
) -> Int[Array, "B {length}"]:
    """Index k of the turn with `starts[b, k] ≤ t < ends[b, k]`, −1 where there is none.

    Turns outside `turn_mask` have no tokens. Spans of a row do not overlap.
    """
    index = jnp.arange(length)
    inside = (starts[..., None] <= index) & (index < ends[..., None]) & turn_mask[..., None]
    return jnp.where(jnp.any(inside, axis=1), jnp.argmax(inside, axis=1).astype(jnp.int32), -1)


def turn_mask_from_counts(
    turn_counts: Int[Array, " M"], max_turns: int
) -> Bool[Array, "M {max_turns}"]:
    """True for the turns that a trajectory has: `k < turn_counts[m]`."""
    return jnp.arange(max_turns) < turn_counts[:, None]


def last_turns(turn_mask: Bool[Array, "M K"]) -> Bool[Array, "M K"]:
    """True at the last turn of each trajectory; all False for a trajectory without turns."""
    after = jnp.pad(turn_mask[:, 1:], ((0, 0), (0, 1)))
    return turn_mask & ~after


def broadcast_to_tokens(
    turn_values: Float[Array, "M K"],
    trajectory_ids: Int[Array, "*rows T"],
    turn_ids: Int[Array, "*rows T"],
) -> Float[Array, "*rows T"]:
    """`out[b, t] = turn_values[trajectory_ids[b, t], turn_ids[b, t]]` on policy tokens,
    0 elsewhere.
    """
    written = (trajectory_ids >= 0) & (turn_ids >= 0)
    row = masking.everywhere(jnp.maximum(trajectory_ids, 0))
    values = masking.everywhere(turn_values)[row, masking.everywhere(jnp.maximum(turn_ids, 0))]
    return jnp.where(written, values, 0.0)


def sum_tokens_by_turn(
    token_values: Float[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    turn_ids: Int[Array, "B T"],
    *,
    trajectories: int,
    max_turns: int,
) -> Float[Array, "{trajectories} {max_turns}"]:
    """Sum of the token values of each turn; tokens that belong to no turn are ignored."""
    written = (trajectory_ids >= 0) & (turn_ids >= 0)
    values = jnp.where(written, token_values.astype(jnp.float32), 0.0)
    total = jnp.zeros((trajectories, max_turns), jnp.float32)
    row = masking.everywhere(jnp.maximum(trajectory_ids, 0))
    column = masking.everywhere(jnp.maximum(turn_ids, 0))
    return total.at[row, column].add(masking.everywhere(values))


def check_turn_ids(turn_ids: Shaped[Array, "B T"], loss_mask: Shaped[Array, "B T"]) -> None:
    """Raises unless exactly the trained tokens belong to a turn. Runs on concrete arrays only."""
    mismatched = int(jnp.sum((turn_ids >= 0) != loss_mask))
    if mismatched:
        raise ValueError(
            f"turn_ids must be >= 0 exactly where loss_mask is True; {mismatched} tokens differ"
        )


def check_token_values(token_values: Shaped[Array, "B T"], turn_ids: Shaped[Array, "B T"]) -> None:
    """Raises when a token outside every turn has a value, such as a reward.

    A sum over turns would drop that value silently. Runs on concrete arrays only.
    """
    stray = int(jnp.sum((token_values != 0) & (turn_ids < 0)))
    if stray:
        raise ValueError(
            f"token_values must be 0 where turn_ids is -1, {stray} tokens of no turn have a value;"
            " put it on the last token of the turn that earned it"
        )
