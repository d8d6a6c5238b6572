"""A loss per token: a sum of terms, each of which names the scores it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gtpo_jax.types import TokenBatch

Diagnostics = dict[str, jax.Array]
"""Name → values per token `[B, T]`; their means over trained tokens become metrics."""

NEEDS = ("proximal_logprobs", "reference_logprobs")
"""Fields of `TokenBatch` that a term may need; `training` computes those that a loss names."""


class Scores(NamedTuple):
    """Scores of every token under the trained policy; gradients flow through them."""

    logprobs: jax.Array  # [B, T] float32
    entropies: jax.Array  # [B, T] float32, nats


class Term(Protocol):
    """`(scores, batch) → loss per token [B, T], diagnostics`."""

    @property
    def needs(self) -> frozenset[str]:
        """Names among `NEEDS`."""
        ...

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]: ...


class Loss(NamedTuple):
    """The sum of its terms: `loss(scores, batch) → loss per token [B, T], diagnostics`."""

    terms: tuple[Term, ...]

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that its terms read besides advantages and behavior log-probs."""
        return frozenset().union(*(term.needs for term in self.terms))

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        missing = sorted(name for name in self.needs if getattr(batch, name) is None)
        if missing:
            raise ValueError(
                f"the loss needs a batch with {', '.join(missing)}; `training.Training` computes"
                " them, or set them with dataclasses.replace"
            )
        parts = [term(scores, batch) for term in self.terms]
        diagnostics: Diagnostics = {}
        for _, named in parts:
            diagnostics |= named
        return functools.reduce(jnp.add, [loss for loss, _ in parts]), diagnostics


class _Function(NamedTuple):
    """A plain function as a term."""

    function: Callable[[Scores, TokenBatch], tuple[jax.Array, Diagnostics]]
    needs: frozenset[str]

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        return self.function(scores, batch)


def term(
    function: Callable[[Scores, TokenBatch], tuple[jax.Array, Diagnostics]], *needs: str
) -> Loss:
    """A loss of one term, a function `(scores, batch) → loss per token, diagnostics`."""
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"a loss may need {', '.join(NEEDS)}, got {', '.join(unknown)}")
    return Loss((_Function(function, frozenset(needs)),))


def add(*losses: Loss) -> Loss:
    """The sum of losses."""
    return Loss(tuple(term for loss in losses for term in loss.terms))
