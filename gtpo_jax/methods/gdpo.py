"""GDPO: GRPO for diffusion language models, with the ratio of evidence lower bounds."""

from __future__ import annotations

from gtpo_jax.maths.elbo import Quadrature
from gtpo_jax.methods.dr_grpo import dr_grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def gdpo(*, nodes: int = 2, masks: int = 1, clip: float = 0.2) -> Method:
    """GDPO, Group Diffusion Policy Optimization (arXiv 2510.08554), for masked-diffusion models.

    `loss = mean_i (−1 / |y_i|) min(ρ_i A_i, clip(ρ_i) A_i)`, `ρ = exp(ELBO(y) − ELBO_old(y))`,
    `A_i = r_i − mean_g(r)`, `ELBO(y) = Σ_n w_n (1 / K) Σ_k (1 / t_n) Σ_masked log π(y_t | y_nk)`.

    `nodes` N and `masks` K are those of the quadrature over the noise level (`maths.elbo`); both
    bounds see the same masks. An autoregressive model has the probabilities themselves. |y| counts
    the end tokens that fill a response. Not known to us are the paper's clip range (`clip` is that
    of PPO) and the weight and estimator of its KL term, which is left to `+ kl weight=…`: k3 of the
    parts of the bound. NVIDIA's method of the same name is the modifier `decoupled`.
    """
    surrogate = losses.Clip(low=clip, high=clip)
    term = losses.SequenceTerm(surrogate=surrogate, quadrature=Quadrature(nodes=nodes, masks=masks))
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=dr_grpo_credit(),
        loss=losses.Loss((term,)),
        reduce=reductions.sequence_mean,
    )
