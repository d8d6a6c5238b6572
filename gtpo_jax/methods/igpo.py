"""IGPO: turns earn what they add to the probability of the right answer."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def igpo_credit(
    *, discount: Scalar = 1.0, turn_weight: Scalar = 1.0, ddof: int = 0, eps: Scalar = 1e-6
) -> credit.Credit:
    """`A[m, k] = Σ_{j ≥ k} discount^(j−k) z[m, j]`, where z normalizes the rewards of last turns
    within the group, and `turn_weight` times those of all earlier turns, each kind by itself.
    """
    scale = {"ddof": ddof, "eps": eps}
    earlier = credit.before_last(credit.standardized(credit.group, **scale))
    last = credit.at_last(credit.standardized(credit.group, **scale))
    both = credit.add(credit.weighted(turn_weight, earlier), last)
    return credit.chain(both, credit.discounted(discount))


def igpo(
    *, discount: float = 1.0, turn_weight: float = 1.0, ddof: int = 0, eps: float = 1e-6
) -> Method:
    """IGPO, Information Gain Policy Optimization (arXiv 2510.14967): turns earn information.

    `A[m, k] = Σ_{j ≥ k} discount^(j−k) z[m, j]` with `r[m, k] = p[m, k] − p[m, k−1]` on every turn
    but the last, which earns the outcome; z normalizes both kinds of rewards within the group, each
    by itself. `p = exp(mean log-prob)` of the tokens of the right answer after the turn.

    Deviations: the outcome is 0 or 1, the paper's the F1 of words; no KL term (`+ kl weight=…` adds
    it). `turn_weight` is ours. Unknown: the discount (1 is chosen, and used by the released code,
    which subtracts the group's mean at each token position and divides by nothing).
    """
    return Method(
        rewards={
            "outcome": rewards.outcome(),
            "format": rewards.forfeit(),
            "information": rewards.information_gain(),
        },
        credit=igpo_credit(discount=discount, turn_weight=turn_weight, ddof=ddof, eps=eps),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
