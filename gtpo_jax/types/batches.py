"""Batches for the device, and the names of what is opaque or may be traced."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from gtpo_jax.types.records import Candidates

Params = Any
"""Parameters of a model: an opaque pytree of arrays."""

Scalar = float | int | jax.Array
"""A hyperparameter. Jitted functions trace it, so sweeping it recompiles nothing."""

Cache = Any
"""Key/value cache of a model: an opaque pytree of leaves `[rows, positions, ...]`."""


class GroupShare(NamedTuple):
    """The share of every token in the losses over whole groups, for the batch of one update."""

    coefficients: jax.Array  # [..., B, T] float32, times the log-prob of the token
    values: jax.Array  # [..., B, T] float32, without a gradient
    diagnostics: dict[str, jax.Array]  # [..., B, T] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Packed rows for the learner. Every array is `[..., B, T]` and token-aligned.

    Several documents may share a row; `segment_ids` keeps them apart, 0 marks padding. Turn indices
    are those of the turn whose policy *wrote* the token, −1 for prompt, tool output and padding.

    With `prefix_ids`, documents of a row may share a prefix: it is a segment of its own, of no
    trajectory, that comes before theirs in the row, and their positions go on from it.
    """

    tokens: jax.Array  # int32
    positions: jax.Array  # int32, position within the document
    segment_ids: jax.Array  # int32, document within the row, counted from 1; 0 = padding
    loss_mask: jax.Array  # bool, the policy wrote this token and it may be trained on
    turn_ids: jax.Array  # int32
    trajectory_ids: jax.Array  # int32, document within the batch, −1 = padding or shared
    behavior_logprobs: jax.Array  # float32
    token_advantages: jax.Array  # float32
    prefix_ids: jax.Array | None = None
    """int32, segment that the token's own one continues, 0 = none; None: nothing is shared."""
    proximal_logprobs: jax.Array | None = None
    """float32, of the policy that a step began with, by the learner; None: `behavior_logprobs`."""
    reference_logprobs: jax.Array | None = None
    """float32, of the policy that the trained one is held to; None: it is held to none."""
    candidates: Candidates | None = None
    """`[..., B, T, K]`, recorded by the sampler beside each token; None: nothing was recorded."""
    marks: dict[str, jax.Array] | None = None
    """Name → float32, further numbers of tokens that the loss reads; see `parts.spreads.Mark`."""
    group_ids: jax.Array | None = None
    """int32, group of the trajectory, counted from 0 within the batch; 0 outside trajectories."""
    successes: jax.Array | None = None
    """bool, the trajectory is a success; False outside trajectories."""
    group_share: GroupShare | None = None
    """Set by the update from a first pass over the batch, if the loss has terms over groups."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeBatch:
    """M trajectories of at most K turns, as credit assignment sees them."""

    group_ids: jax.Array  # [M] int32
    included: jax.Array  # [M] bool, the outcome is known
    success: jax.Array  # [M] bool
    turn_mask: jax.Array  # [M, K] bool
    violations: jax.Array  # [M, K] bool
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name → arrays `[M, ...]` that parts of a method ask for; see `parts.facts`."""
