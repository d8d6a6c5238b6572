"""GTPO: credit to turns."""

from __future__ import annotations

from typing import Annotated

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.types import Scalar


def gtpo_credit(
    *,
    discount: Scalar = 0.9,
    normalize: credit.Set = credit.group,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: Scalar = 1e-6,
) -> credit.Credit:
    """`A[m, k] = (R[m, k] − mean(R)) / (std(R) + eps)`, where R are the discounted returns of
    turns.

    Discounting comes first, then normalization (Eq. 6 and 7). The paper does not name the set over
    which mean and std are taken; the default is every turn of every included trajectory of the
    group, and `normalize` selects other readings. `ddof` and `eps` are our choice.
    """
    options = {"divide_by_std": divide_by_std, "ddof": ddof, "eps": eps}
    return credit.chain(credit.discounted(discount), credit.standardized(normalize, **options))


gtpo_advantages = credit.as_function(gtpo_credit)


def gtpo(
    *,
    discount: float = 0.9,
    shaping: float = 0.5,
    floor: float = 0.0,
    embed: Annotated[rewards.Embedding | rewards.EmbedTexts, rewards.EMBEDDINGS] = rewards.NGRAMS,
    format_penalty: float = 0.1,
    normalize: Annotated[credit.Set, credit.SETS] = credit.group,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
    silence_equal: bool = True,
) -> Method:
    """GTPO, Group Turn Policy Optimization (arXiv 2511.14846): credit to turns.

    `A[m, k] = (R[m, k] − mean(R)) / std(R)`, where R are the discounted returns of turns; a failure
    earns `(shaping / |P|) Σ_{p ∈ P} cos(code, code_p)` from the successes P of its group.

    Published: discount .9, shaping .5, format penalty .1. Unknown: the set of the normalization
    (`normalize`), `ddof`, `eps`, whether negative cosines count (`floor` −1 counts them), the clip
    range (here DAPO's), KL and averaging (here over tokens). The paper embeds code with Amazon
    Titan Text Embeddings V2; `embed` is ngrams, policy_states, or a function of texts to vectors.

    Deviation: groups whose trajectories are all right or all wrong have advantages of 0
    (docs/lab.md says why); `silence_equal=false` normalizes them like any other, as the paper does.
    """
    turns = gtpo_credit(
        discount=discount, normalize=normalize, divide_by_std=divide_by_std, ddof=ddof, eps=eps
    )
    return Method(
        rewards={
            "outcome": rewards.outcome(),
            "partial": rewards.resemblance(shaping, floor=floor, embed=embed),
            "format": rewards.format_penalty(format_penalty),
        },
        credit=credit.chain(turns, credit.silence_equal_groups()) if silence_equal else turns,
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
