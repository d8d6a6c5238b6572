"""A loss per token: a sum of terms, each of which names the scores it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import logprobs
from gtpo_jax.types import TokenBatch

Diagnostics = dict[str, jax.Array]
"""Name → values per token `[B, T]`; their means over trained tokens become metrics."""

FIELDS = ("proximal_logprobs", "reference_logprobs", "candidates")
"""Fields of `TokenBatch` that a term may need. `training` computes the log-probs that a loss names;
candidates are recorded by the sampler."""

NEEDS = (*FIELDS, *logprobs.EXTRAS)
"""What a term may need: `FIELDS` of the batch, and the extras of `Scores`."""


class Scores(NamedTuple):
    """Scores of every token under the trained policy; gradients flow through them."""

    logprobs: jax.Array  # [B, T] float32
    entropies: jax.Array  # [B, T] float32, nats
    extras: Mapping[str, jax.Array] = {}
    """Further statistics by name, `[B, T, ...]` float32: those of `logprobs.EXTRAS` that the loss
    needs."""


class Term(Protocol):
    """`(scores, batch) → loss per token [B, T], diagnostics`."""

    @property
    def needs(self) -> frozenset[str]:
        """Names among `NEEDS`."""
        ...

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]: ...


@runtime_checkable
class TermOfCandidates(Term, Protocol):
    """A term that needs `candidates`, or `candidate_logprobs`, and says how many."""

    @property
    def candidates(self) -> int:
        """Number of the sampler's likeliest tokens that are recorded beside each draw."""
        ...


class Loss(NamedTuple):
    """The sum of its terms: `loss(scores, batch) → loss per token [B, T], diagnostics`."""

    terms: tuple[Term, ...]

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that its terms read besides advantages and behavior log-probs."""
        named = frozenset().union(*(term.needs for term in self.terms))
        return named | {"candidates"} if "candidate_logprobs" in named else named

    @property
    def candidates(self) -> int:
        """Number of candidates that the sampler has to record for its terms; 0: none."""
        return max((t.candidates for t in self.terms if isinstance(t, TermOfCandidates)), default=0)

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        needs = self.needs
        missing = sorted(n for n in needs & set(FIELDS) if getattr(batch, n) is None)
        if missing:
            raise ValueError(
                f"the loss needs a batch with {', '.join(missing)}; `training.Training` computes"
                " log-probs and packs recorded candidates, or set them with dataclasses.replace"
            )
        absent = sorted(needs - set(FIELDS) - set(scores.extras))
        if absent:
            raise ValueError(
                f"the loss needs scores with {', '.join(absent)}; pass needs=loss.needs to"
                " `learner.batch_logprobs`"
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
    candidates: int

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        return self.function(scores, batch)


def term(
    function: Callable[[Scores, TokenBatch], tuple[jax.Array, Diagnostics]],
    *needs: str,
    candidates: int = 0,
) -> Loss:
    """A loss of one term, a function `(scores, batch) → loss per token, diagnostics`.

    `candidates`: how many of the sampler's likeliest tokens the function compares, if it needs
    them.
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"a loss may need {', '.join(NEEDS)}, got {', '.join(unknown)}")
    if ({"candidates", "candidate_logprobs"} & set(needs)) and candidates < 1:
        raise ValueError(
            f"a loss that needs {', '.join(needs)} says how many: candidates must be at least 1,"
            f" got {candidates}"
        )
    return Loss((_Function(function, frozenset(needs), candidates),))


def add(*losses: Loss) -> Loss:
    """The sum of losses."""
    return Loss(tuple(term for loss in losses for term in loss.terms))
