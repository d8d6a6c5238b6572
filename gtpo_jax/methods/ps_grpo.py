"""PS-GRPO: answers earn by agreement with the answers to other phrasings of the question."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method, Modifier, add_reward
from gtpo_jax.parts import rewards


def ps_grpo(
    *,
    weight: float = 1.0,
    order: int = 2,
    compare: Literal["last", "answer"] = "last",
    labels: bool = True,
) -> Modifier:
    """PS-GRPO of Con-RAG (arXiv 2510.04392): paraphrases of a question should agree.

    `r_m + weight · mean_n BLEU(o_m, o_n)` over the rows n of other paraphrases of the question;
    advantages are those of the method, within each paraphrase.

    Problems name their family in the field `paraphrase_of` of their record, and the problems of a
    family must be in one step to be compared. `o` is the text of the last turn or the answer,
    BLEU is that of words (`order` 1) or of words and pairs (2), from hashed counts. `labels` false
    drops the outcome and format rewards: agreement on a wrong answer then earns as much.

    Deviations: all rows of all paraphrases are compared, where the paper samples 3 paraphrases and
    one row of each; the outcome stands for its token F1. Unknown: the weights; ours is chosen.
    """
    part = rewards.weighted(weight, rewards.agreement(order=order, compare=compare))

    def modify(method: Method) -> Method:
        if not labels:
            others = {n: r for n, r in method.rewards.items() if n not in ("outcome", "format")}
            method = method._replace(rewards=others)
        return add_reward(method, "agreement", part)

    return modify
