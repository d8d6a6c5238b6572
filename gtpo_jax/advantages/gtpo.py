"""GTPO: discounted turn returns, normalized (arXiv 2511.14846, Eq. 6 and 7)."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float, Int

from gtpo_jax import returns
from gtpo_jax.advantages import normalize as normalization
from gtpo_jax.advantages.inputs import check_inputs
from gtpo_jax.types import Scalar


def gtpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    discount: Scalar = 0.9,
    normalize: normalization.NormalizeFn = normalization.normalize_within_groups,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = (R[m, k] − mean(R)) / (std(R) + eps)`, `R` the discounted returns.

    First discounted, then normalized. The paper writes mean and std without naming the set they are
    taken over; the default is every turn of every included trajectory of the group, and `normalize`
    is another reading of it. `ddof` and `eps` are our choice.
    """
    check_inputs(turn_rewards, turn_mask, group_ids, included)
    turn_returns = returns.discounted_returns(turn_rewards, turn_mask, discount=discount)
    return normalize(
        turn_returns,
        turn_mask & included[:, None],
        group_ids,
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
    )
