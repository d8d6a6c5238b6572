"""Flow-GRPO: one outcome for all turns, each of which is a sample of its own."""

from __future__ import annotations

from typing import Annotated

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def flow_grpo(
    *,
    normalize: Annotated[credit.Set, credit.SETS] = credit.first_turn,
    kl: float = 0.001,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Method:
    """Flow-GRPO of AgentFlow (arXiv 2510.05592): the outcome on all turns, each its own sample.

    `A[m, k] = (r_m − mean_g(r)) / std_g(r)` for all turns, and
    `loss = (1 / n) Σ_k (1 / |y_k|) Σ_t loss_kt` over the n turns of the batch.

    Clip range .2 / .3, k3 KL .001. Statistics count a trajectory once; the released code takes
    them over the samples, so that a trajectory counts once a turn: `normalize=group`.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.chain(credit.total(), credit.standardized(normalize, ddof=ddof, eps=eps)),
        loss=losses.add(losses.clipped(low=0.2, high=0.3), losses.divergence(kl)),
        reduce=reductions.turn_mean,
    )
