"""EAPO: a discounted outcome for every round, all rounds of a question in one group."""

from __future__ import annotations

from gtpo_jax.methods.gtpo import gtpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.methods.ratios import unit_ratio
from gtpo_jax.parts import losses, reductions, rewards


def eapo(
    *,
    discount: float = 0.95,
    low: float = 3e-4,
    high: float = 4e-4,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Method:
    """EAPO of IterResearch (arXiv 2511.07327): the outcome, discounted back over the rounds.

    `A[m, k] = (R[m, k] − mean_g(R)) / std_g(R)`, `R[m, k] = discount^(T_m − k) · r_m` in round k of
    T, over all rounds of all trajectories of the question. One ratio a round, rounds weigh equally.

    These are GTPO's returns of a terminal reward, normalized over all turns of the group. Unknown:
    the discount, .95 is chosen; `ddof`, `eps` and the clip range (GSPO's) are our choice. The
    choice of prompts by their success, 20 to 60 %, is `success_window`; the adaptive downsampling
    to a multiple of the devices is left out.
    """
    return unit_ratio(unit="turn")(
        Method(
            rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
            credit=gtpo_credit(discount=discount, ddof=ddof, eps=eps),
            loss=losses.clipped(low=low, high=high),
            reduce=reductions.turn_mean,
        )
    )
