"""A loss per token: a sum of terms, each of which names the scores it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import logprobs, ratios, units
from gtpo_jax.parts.losses.members import GroupTerm
from gtpo_jax.parts.spreads import Mark
from gtpo_jax.types import TokenBatch

Diagnostics = dict[str, jax.Array]
"""Name → values per token `[B, T]`; their means over trained tokens become metrics."""

GROUP_FIELDS = ("group_ids", "successes")
"""Fields of `TokenBatch` that terms over groups need, always."""

FIELDS = ("proximal_logprobs", "reference_logprobs", "candidates", *GROUP_FIELDS)
"""Fields of `TokenBatch` that a term may need. `training` computes the log-probs that a loss names;
candidates are recorded by the sampler, groups and successes are packed."""

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


@runtime_checkable
class TokenChoice(Protocol):
    """`(scores, batch) → bool [B, T]`: True for trained tokens that the loss keeps."""

    @property
    def needs(self) -> frozenset[str]:
        """Names among `NEEDS`."""
        ...

    def __call__(self, scores: Scores, batch: TokenBatch) -> jax.Array: ...


@runtime_checkable
class TermOfMarks(Term, Protocol):
    """A term that reads `batch.marks`."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks that it reads."""
        ...


class Loss(NamedTuple):
    """The sum of its terms: `loss(scores, batch) → loss per token [B, T], diagnostics`.

    Terms over whole groups enter by the batch's `group_share`; see `shares.with_group_share`.
    `choices` leave tokens out of the terms of tokens. The tokens of a trajectory that are kept, k
    of n, weigh n / k each, so that the trajectory keeps its weight; a trajectory without any adds
    0.
    """

    terms: tuple[Term, ...]
    group_terms: tuple[GroupTerm, ...] = ()
    choices: tuple[TokenChoice, ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that its terms read besides advantages and behavior log-probs."""
        parts = (*self.terms, *self.group_terms, *self.choices)
        named = frozenset().union(*(part.needs for part in parts))
        named |= set(GROUP_FIELDS if self.group_terms else ())
        return named | {"candidates"} if "candidate_logprobs" in named else named

    @property
    def candidates(self) -> int:
        """Number of candidates that the sampler has to record for its terms; 0: none."""
        return max((t.candidates for t in self.terms if isinstance(t, TermOfCandidates)), default=0)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks of tokens that its terms read, each once.

        Raises `ValueError` if two differ and have one name.
        """
        marks: dict[str, Mark] = {}
        for mark in (m for term in self.terms if isinstance(term, TermOfMarks) for m in term.marks):
            if marks.setdefault(mark.name, mark) != mark:
                raise ValueError(
                    f"two terms of the loss read different marks named {mark.name!r}; leave one of"
                    " the modifiers out, or give them the same options"
                )
        return tuple(marks.values())

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        needs = self.needs
        unmarked = sorted({mark.name for mark in self.marks} - set(batch.marks or {}))
        if unmarked:
            raise ValueError(
                f"the loss needs a batch with marks {', '.join(unmarked)}; `training.Training`"
                " computes them, and `methods.method.token_numbers` does"
            )
        missing = sorted(n for n in needs & set(FIELDS) if getattr(batch, n) is None)
        if missing:
            raise ValueError(
                f"the loss needs a batch with {', '.join(missing)}; `training.Training` computes"
                " log-probs and packs recorded candidates, or set them with dataclasses.replace"
            )
        share = batch.group_share
        if self.group_terms and share is None:
            raise ValueError(
                "the loss has terms over groups, which need the batch's group_share; the update of"
                " `learner.make_update` sets it, and so does `losses.with_group_share`"
            )
        absent = sorted(needs - set(FIELDS) - set(scores.extras))
        if absent:
            raise ValueError(
                f"the loss needs scores with {', '.join(absent)}; pass needs=loss.needs to"
                " `learner.batch_logprobs`"
            )
        parts = [term(scores, batch) for term in self.terms]
        if self.choices:
            factors = _factors(self.choices, scores, batch)
            parts = [(jnp.where(factors > 0, loss * factors, 0.0), named) for loss, named in parts]
            parts.append((jnp.zeros_like(factors), {"kept": (factors > 0).astype(factors.dtype)}))
        if self.group_terms and share is not None:
            moved = scores.logprobs - jax.lax.stop_gradient(scores.logprobs)
            parts.append((share.coefficients * moved + share.values, share.diagnostics))
        diagnostics: Diagnostics = {}
        for _, named in parts:
            diagnostics |= named
        return functools.reduce(jnp.add, [loss for loss, _ in parts]), diagnostics


def _factors(choices: tuple[TokenChoice, ...], scores: Scores, batch: TokenBatch) -> jax.Array:
    """`n / k` on tokens that all choices keep, 0 on others, `[B, T]`; see `Loss`."""
    scores = jax.lax.stop_gradient(scores)
    kept = functools.reduce(jnp.logical_and, [choice(scores, batch) for choice in choices])
    kept &= batch.loss_mask
    share = ratios.unit_values(
        kept.astype(scores.logprobs.dtype),
        batch.loss_mask,
        units.row_unit_ids(batch, turns=False),
        units=batch.tokens.size,
    )
    return jnp.where(kept, 1.0 / jnp.where(kept, share, 1.0), 0.0)


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
    return Loss(
        tuple(term for loss in losses for term in loss.terms),
        tuple(term for loss in losses for term in loss.group_terms),
        tuple(choice for loss in losses for choice in loss.choices),
    )


def over_groups(*terms: GroupTerm) -> Loss:
    """A loss of terms over whole groups alone."""
    return Loss((), terms)
