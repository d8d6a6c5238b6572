"""CJ-GRPO: GRPO for diffusion language models, on the steps in which a response was written."""

from __future__ import annotations

from gtpo_jax.methods.dr_grpo import dr_grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def cj_grpo(*, clip: float = 0.5, kl_weight: float = 0.04) -> Method:
    """CJ-GRPO, consistency-trajectory GRPO (arXiv 2509.23924), for masked-diffusion models.

    `loss = (1 / S) Σ_s mean_{t in step s} [−min(ρ_t A, clip(ρ_t) A) + β k3_t]`,
    `A = r − mean_g(r)`, `ρ_t = π(y_t | state before step s) / μ(the same)`.

    A denoising step is a turn here, and the states are those of the rollout itself. `clip` .5 and
    `kl_weight` β = .04 are those of the authors' scripts; they renew the reference policy every 64
    updates, ours stays the one that training began with. Their mean over a step joins the rows of a
    batch; ours is taken row by row, which is the same where rows unmask equally many tokens. The
    places that a step unmasks count as given: their probability is no part of the ratio, as in the
    paper.
    """
    loss = losses.clipped(low=clip, high=clip)
    if kl_weight:
        loss = losses.add(loss, losses.divergence(kl_weight))
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=dr_grpo_credit(),
        loss=loss,
        reduce=reductions.turn_mean,
    )
