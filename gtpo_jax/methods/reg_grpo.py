"""Reg-GRPO: regression of log-ratios on advantages, in place of a clipped surrogate."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def reg_grpo(
    *,
    eps: float = 0.1,
    scale: float | None = None,
    kl: float = 0.01,
    recompute: bool = False,
) -> Method:
    """Reg-GRPO of DeepVideo-R1 (arXiv 2506.07464): predicts the advantage by the log-ratio.

    `loss = mean_i (z(R)_i − z(ρ)_i)² + kl · KL(π ‖ π_ref)`, `ρ_i = Σ_t (log π − log μ)` over the
    trajectory and z the standard score in the group. With `scale` λ it is the form of REBEL (arXiv
    2404.16767), `mean_i (z(R)_i − λ (ρ_i − mean_g ρ))²`.

    Unknown: the weight of the KL term, .01 is chosen; it is needed, because the loss does not see
    the scale of ρ. Deviations: `z(ρ) = (ρ − mean) / sqrt(var + eps²)`, with an `eps` of the order
    of the spread of ρ, because all ρ are 0 on the first update. The hints that the paper adds to
    hard questions are not part of this method.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=grpo_credit(),
        loss=losses.add(
            losses.regression(eps=eps, scale=scale, recompute=recompute), losses.divergence(kl)
        ),
        reduce=reductions.token_mean,
    )
