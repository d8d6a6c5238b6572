"""The arrays that the decode programs take and give.

The row axis B comes first in every array, and may be sharded.
"""

from __future__ import annotations

import dataclasses

import jax

from gtpo_jax.decoding import sampling
from gtpo_jax.types import Cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeState:
    """All rows of a rollout on the device."""

    cache: Cache  # leaves [B, ..., S, H], as `ForwardFn` says
    keys: jax.Array  # [B] random keys, one per trajectory
    lengths: jax.Array  # [B] int32, tokens in the cache; the pending token stands at this position
    pending: jax.Array  # [B] int32
    limits: jax.Array  # [B] int32, the row stops when it holds this many tokens, pending included
    matching: jax.Array  # [B] int32, state of the automaton of stop strings
    active: jax.Array  # [B] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """The samples of one decode segment. Row b wrote the first `counts[b]` of the `n` columns."""

    draws: sampling.Draw  # leaves [B, n], candidates [B, n, K]
    counts: jax.Array  # [B] int32
    matched: jax.Array  # [B] bool, the last token completed a stop string
    active: jax.Array  # [B] bool, still in the middle of a turn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts to prefill, and the rows that begin with them.

    For `source[b] < P`, row b begins with prompt `source[b]` of this call. From P on, it copies the
    first W positions of row `source[b] − P`: what some row holds is not computed again. All copies
    are of the rows as they were before the call.
    """

    tokens: jax.Array  # [P, W] int32, padded on the right; P may be 0
    source: jax.Array  # [B] int32, −1 leaves the row alone
    lengths: jax.Array  # [B] int32, tokens that the row begins with, without the pending one
    pending: jax.Array  # [B] int32, the token after them, such as the last one of the prompt
    keys: jax.Array  # [B] random keys of the new trajectories
    limits: jax.Array  # [B] int32, of the turn that begins
    begins: jax.Array  # [B] bool, the row goes on decoding after these tokens
    matching: jax.Array | None = None  # as below


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Appended:
    """Tokens that the environment appends to R of the rows."""

    rows: jax.Array  # [R] int32, each at most once; indices ≥ B are padding and ignored
    tokens: jax.Array  # [R, W] int32, padded on the right
    counts: jax.Array  # [R] int32, at least 1 for a row
    limits: jax.Array  # [R] int32, of the turn that begins
    begins: jax.Array  # [R] bool, the row goes on decoding after these tokens
    matching: jax.Array | None = None
    """[R] int32, state of the automaton of stop strings after these tokens; None: its start."""
