"""Imitation: the negative log-likelihood of demonstrations."""

from __future__ import annotations

from gtpo_jax.parts.losses.loss import Loss, term


def imitation() -> Loss:
    """`−log π(token)` of every token."""
    return term(lambda scores, batch: (-scores.logprobs, {}))


def denoising() -> Loss:
    """`−(1 / t) log π(token)` of every hidden token, where t is the share that is hidden.

    The weight 1 / t stands in the `token_advantages` of `learner.noising.noised_stream`.
    """
    return term(lambda scores, batch: (-batch.token_advantages * scores.logprobs, {}))
