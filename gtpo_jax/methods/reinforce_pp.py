"""REINFORCE++: advantages scaled over the whole batch."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def reinforce_pp_credit(
    *, discount: Scalar = 1.0, ddof: int = 0, eps: Scalar = 1e-6
) -> credit.Credit:
    """`A[m, k] = (R[m, k] − mean(R)) / (std(R) + eps)`, with statistics over all turns of the
    batch.

    The original discounts and whitens per *token*, so that a longer turn is discounted more and
    weighs more. Ours is per turn, as everything here; with one token per turn the two are equal.
    """
    over_batch = credit.standardized(credit.batch, ddof=ddof, eps=eps)
    return credit.chain(credit.discounted(discount), over_batch)


def reinforce_pp_baseline_credit(*, ddof: int = 0, eps: Scalar = 1e-6) -> credit.Credit:
    """`A[m, k] = a_m / (std(a) + eps)`, `a_m = r_m − mean_g(r)`, std over all trajectories.

    Differences within a group, on a scale common to all groups. Their mean over the batch is 0 and
    is not subtracted again, because its rounding would give equal groups an advantage.
    """
    return credit.chain(
        credit.total(),
        credit.centered(credit.first_turn),
        credit.scaled(credit.batch_first_turn, ddof=ddof, eps=eps),
    )


reinforce_pp_advantages = credit.as_function(reinforce_pp_credit)
reinforce_pp_baseline_advantages = credit.as_function(reinforce_pp_baseline_credit)


def reinforce_pp(*, discount: float = 1.0, ddof: int = 0, eps: float = 1e-6) -> Method:
    """REINFORCE++ (arXiv 2501.03262): returns whitened over the batch, without groups.

    `A[m, k] = (R[m, k] − mean_batch(R)) / std_batch(R)`.

    Deviations: per turn, not per token; the KL term, which the paper adds to the reward, is left to
    `+ kl`.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=reinforce_pp_credit(discount=discount, ddof=ddof, eps=eps),
        loss=losses.clipped(low=0.2, high=0.2),
        reduce=reductions.token_mean,
    )


def reinforce_pp_baseline(*, ddof: int = 0, eps: float = 1e-6) -> Method:
    """REINFORCE++-baseline (arXiv 2501.03262): the group's mean, the deviation of the batch.

    `A[m, k] = (r_m − mean_g(r)) / std_batch(r − mean_g(r))` for all turns.

    Deviation: the KL term is left to `+ kl weight=… estimator=k2`.
    """
    return reinforce_pp()._replace(credit=reinforce_pp_baseline_credit(ddof=ddof, eps=eps))
