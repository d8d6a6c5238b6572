"""OORL: online rewards, and a preference of successes as a group over failures."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.methods.reinforce_pp import reinforce_pp
from gtpo_jax.parts import losses


def gepo(*, weight: float = 0.01, beta: float = 0.1, variance: float = 1.0) -> Modifier:
    """GEPO, group equivalent preference optimization (arXiv 2505.12723): winners as a group.

    `loss + weight · mean_q [−log σ(mean_w r − mean_l r) + variance · Var_w(r)]`, where
    `r_i = beta Σ_t (log π − log π_ref)`, w are the successes of a question and l its failures.

    Unknown: `beta`, DPO's .1 is chosen. Deviation: the paper takes winners and losers from a batch
    that was collected before, equivalent programs for one; here they are those of the rollout, and
    questions that lack one of the two do not count. Not the GEPO of arXiv 2508.17850.
    """
    term = losses.group_preference(weight=weight, beta=beta, variance=variance)
    return lambda method: method._replace(loss=losses.add(method.loss, term))


def oorl(*, weight: float = 0.01, beta: float = 0.1, variance: float = 1.0) -> Method:
    """OORL (arXiv 2505.12723): REINFORCE++ on outcomes, and GEPO.

    `L = L_RL + weight · L_GEPO`; see `gepo` for what is unknown.
    """
    return gepo(weight=weight, beta=beta, variance=variance)(reinforce_pp())
