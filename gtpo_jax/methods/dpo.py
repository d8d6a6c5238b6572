"""DPO on pairs of a group: the third stage of VerIPO's loop."""

from __future__ import annotations

from collections.abc import Callable

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, facts, losses, reductions, rewards
from gtpo_jax.types import Trajectory


def dpo(
    *,
    beta: float = 0.1,
    longest: int | None = None,
    most_repetition: float | None = None,
    consistent: Callable[[Trajectory], float] | None = None,
) -> Method:
    """DPO (arXiv 2305.18290) on rollouts of a group, chosen as VerIPO does (arXiv 2505.19000).

    `mean_{(i, j)} −log σ(r_i − r_j)`, `r_i = beta Σ_t (log π − log π_ref)`, over pairs of a group
    of which the first passes the filter and the second does not: right, at most `longest` tokens,
    at most a share `most_repetition` of repeated 4-grams, and `consistent(trajectory)` true.

    VerIPO goes round GRPO, the filter, and DPO with beta .1 and a learning rate of 5e-7. Unknown:
    its thresholds, so that each is off until it is given, and how it draws pairs; here all of a
    group count.
    """
    fact = None if consistent is None else facts.measured(credit.CONSISTENT, consistent)
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.preferred(longest=longest, most_repetition=most_repetition, consistent=fact),
        loss=losses.pair_preference(beta=beta),
        reduce=reductions.token_mean,
    )
