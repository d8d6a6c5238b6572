"""SPO: a tracked success rate of each problem as the baseline, without groups."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def spo(
    *,
    drift: float = 0.06,
    half_life: float = 0.06,
    prior: float = 0.5,
    slots: int = 8192,
    ddof: int = 1,
    eps: float = 1e-8,
) -> Method:
    """SPO, Single-stream Policy Optimization (arXiv 2509.13232): a tracked value per problem.

    `A[m, k] = (r_m − v − mean_batch(r − v)) / std_batch(r − v)` with the value `v = a / (a + b)` of
    the problem before the step; then `a ← q a + Σ r`, `b ← q b + Σ (1 − r)` over its trajectories,
    `q = clip(2^(−drift / half_life), .875, .96)`.

    Published: half_life .06, counts of .5 without data, clip .2 / .28, dual clip 10, no KL.
    Deviations: the paper measures `drift`, the mean change of the log-probs of the problem's last
    response, for which responses would have to be stored; here it is a number, and .06 (q = .875)
    is chosen. Old counts shrink once a step, so the order of its trajectories does not matter.
    Eight offline rollouts of each problem, from which the paper starts, are left out; its sampling
    of problems by `sqrt(v (1 − v)) + .05` is `spo_prompts`. A problem has the slot `id % slots` and
    may share it with another. Made for one trajectory a problem; several are taken as well.
    """
    tracked = credit.minus_tracked_value(slots=slots, drift=drift, half_life=half_life, prior=prior)
    over_batch = credit.standardized(credit.batch_first_turn, ddof=ddof, eps=eps)
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.chain(credit.total(), tracked, over_batch),
        loss=losses.clipped(low=0.2, high=0.28, dual=10.0),
        reduce=reductions.token_mean,
    )
