"""Named ways to make one number of a loss per token."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float

from gtpo_jax import masking


def token_mean(
    per_token: Float[Array, "B T"], loss_mask: Bool[Array, "B T"]
) -> masking.WeightedSum:
    """Every trained token of the whole batch weighs the same, whatever the
    length of its trajectory.
    """
    return masking.masked_sum(per_token, loss_mask)
