"""Reward-decoupled normalization: each part of the reward is normalized by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.parts import credit


def decoupled(
    *,
    weights: Mapping[str, float] | None = None,
    joined: Collection[str] = ("outcome", "partial"),
    whiten: bool = True,
    over: Annotated[credit.Set, credit.SETS] = credit.batch,
    ddof: int = 1,
    eps: float = 1e-4,
) -> Modifier:
    """Reward-decoupled normalization, NVIDIA's GDPO (arXiv 2601.05242), for any credit of a method.

    `A = (S − mean(S)) / (std(S) + eps)`, `S = Σ_n weights[n] · credit(r_n)` over the named parts
    r_n of the reward: each goes through the method's own credit by itself, so that the small
    differences of one part do not drown another. Mean and std are over the batch (`whiten=false`
    leaves them out).

    Parts of `joined` are added up first, because they have a meaning only together: `partial`
    alone would rank failures above successes. For `grpo` and its relatives, `format` belongs there
    too. After normalization the size of a part does not count, so that a small penalty has the
    voice of the outcome, unless `weights` says otherwise.

    Published: whitening over the batch, ddof 1, eps 1e-4, weights of advantages. Deviations: the
    credit is that of the method (the paper's is `grpo`'s with ddof 1), and the batch counts turns
    (`over=batch_first_turn` counts trajectories, as the paper does). A method with one reward is
    whitened too. The credit must have no state. Not the GDPO of diffusion language models.
    """

    def modify(method: Method) -> Method:
        changed = credit.decoupled(method.credit, weights=weights, joined=joined)
        if whiten:
            changed = credit.chain(changed, credit.standardized(over, ddof=ddof, eps=eps))
        return method._replace(credit=changed)

    return modify
