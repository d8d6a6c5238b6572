"""Imitation: the negative log-likelihood of demonstrations."""

from __future__ import annotations

from gtpo_jax.parts.losses.loss import Loss, term


def imitation() -> Loss:
    """`−log π(token)` of every token."""
    return term(lambda scores, batch: (-scores.logprobs, {}))
