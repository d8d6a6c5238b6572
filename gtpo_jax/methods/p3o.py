"""P3O: policy gradients of pairs."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def p3o(
    *,
    clipping: Literal["separate", "joint"] = "separate",
    clip: float | None = 0.2,
    kl: float = 0.0,
) -> Method:
    """P3O, Pairwise Proximal Policy Optimization (arXiv 2310.00212): only differences count.

    Gradient of `½ (r_i − r_j) log(π(y_i) / π(y_j))` over the pairs of a group, with
    `r = R − kl · log(μ / π_ref)` of the whole trajectory. Without a clip it is that of RLOO on
    fresh samples.

    Unknown: the exact clipped forms. As read here, `separate` (V1) clips the ratio of each of the
    two to the sampler, and `joint` (V2) the quotient of the two ratios, with the better one first;
    both as PPO clips. Unknown too: the clip range, PPO's .2, and `kl`, off by default. Deviation:
    all pairs of a group, each trajectory with equal weight, where the paper draws two responses.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.total(),
        loss=losses.pair_gradient(clipping=clipping, limit=clip, kl=kl),
        reduce=reductions.token_mean,
    )
