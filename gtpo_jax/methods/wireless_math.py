"""WirelessMathLM: mostly accuracy, a little format."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def wireless_math(
    *, form: float = 0.1, accuracy: float = 0.9, kl: float = 0.01, ddof: int = 0, eps: float = 1e-6
) -> Method:
    """WirelessMathLM's recipe (arXiv 2509.23219): mostly accuracy, a little format.

    `r_m = form · well_formed + accuracy · success`, then GRPO's credit, clip .2 and a KL term.

    The paper trains base models with 8 rollouts per problem at temperature 1.

    Deviations: population deviation (`ddof` 0) and token mean, as in `grpo`.
    """
    return Method(
        rewards={"outcome": rewards.outcome(right=accuracy), "format": rewards.well_formed(form)},
        credit=grpo_credit(ddof=ddof, eps=eps),
        loss=losses.add(losses.clipped(low=0.2, high=0.2), losses.divergence(kl)),
        reduce=reductions.token_mean,
    )
