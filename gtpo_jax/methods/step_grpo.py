"""Step-GRPO: every step is a GRPO problem of its own."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards


def step_grpo(
    *,
    discount: float = 0.0,
    format_penalty: float = 0.1,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Method:
    """Step-GRPO of R1-Router (arXiv 2505.22095): each step is compared in the same context only.

    `A[m, k] = (R[m, k] − mean_s(R)) / std_s(R)` over the turns s of the group with the index k and
    the same states and actions before it, `R[m, k] = Σ_{j ≥ k} discount^(j−k) r[m, j]`.

    The paper rewards each step by itself, with the similarity of a sub-query, the match of a
    retriever or the F1 of an answer: `discount` 0, the default, and `+ reward function=…` adds
    rewards of turns. With a discount above 0 steps share later rewards, which is our own. States
    and actions are equal if tool outputs and codes are. `ddof` and `eps` are our choice.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.format_penalty(format_penalty)},
        credit=credit.chain(
            credit.discounted(discount), credit.among_histories(ddof=ddof, eps=eps)
        ),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
