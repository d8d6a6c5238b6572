"""GTPO: discounted turn returns, normalized over all turns of the group
(arXiv 2511.14846, Eq. 6 and 7).
"""

from __future__ import annotations

from jaxtyping import Array, Bool, Float, Int

from gtpo_jax import returns
from gtpo_jax.advantages import normalize


def gtpo_advantages(
    turn_rewards: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    group_ids: Int[Array, " M"],
    included: Bool[Array, " M"],
    *,
    discount: float = 0.9,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Float[Array, "M K"]:
    """`A[m, k] = (R[m, k] − mean(R)) / (std(R) + eps)`, statistics over every turn of every
    included trajectory of the group, `R` the discounted returns. First discounted, then normalized.

    The paper writes mean and std without naming the set; ours is the group. `ddof` and `eps` are
    our choice.
    """
    turn_returns = returns.discounted_returns(turn_rewards, turn_mask, discount=discount)
    return normalize.normalize_within_groups(
        turn_returns,
        turn_mask & included[:, None],
        group_ids,
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
    )
