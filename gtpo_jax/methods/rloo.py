"""RLOO: each trajectory's reward minus the mean of the others."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def rloo_credit() -> credit.Credit:
    """`A[m, k] = r_m − mean_{j ≠ m}(r_j)`, over the n included trajectories of the group.

    Equals `n / (n − 1) · (r_m − mean_g(r))`. A trajectory without others has no baseline: its
    advantage is 0.
    """
    return credit.chain(credit.total(), credit.leave_one_out(credit.first_turn))


rloo_advantages = credit.as_function(rloo_credit)


def rloo() -> Method:
    """RLOO, REINFORCE leave-one-out (arXiv 2402.14740): the mean of the others is the baseline.

    `A[m, k] = r_m − mean_{j ≠ m}(r_j)` for all turns.

    Deviation: the surrogate is clipped as in `gtpo`, because the paper's is REINFORCE on fresh
    samples; on the first update of a step the two gradients are equal.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=rloo_credit(),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
