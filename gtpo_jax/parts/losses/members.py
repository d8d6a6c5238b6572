"""The trajectories of a batch, as losses over whole groups see them."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from gtpo_jax.maths import masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Members:
    """At most M trajectories of a batch `[..., B, T]`; each array is `[M]`.

    Places without a trajectory that is trained on are not `present`.
    """

    present: jax.Array  # bool
    group_ids: jax.Array  # int32, in [0, M)
    successes: jax.Array  # bool
    advantages: jax.Array  # float32, mean over the trained tokens
    lengths: jax.Array  # float32, number of trained tokens
    index: jax.Array  # [..., B, T] int32, trajectory of each token
    trained: jax.Array  # [..., B, T] bool

    def total(self, per_token: jax.Array) -> jax.Array:
        """`Σ_t x_t` over the trained tokens of each trajectory, `[..., B, T] → [M]`."""
        values = jnp.where(self.trained, masking.everywhere(as_float(per_token)), 0.0)
        return jnp.zeros(self.present.shape, values.dtype).at[self.index].add(values)

    def mean(self, per_token: jax.Array) -> jax.Array:
        """`(1 / |y_i|) Σ_t x_t` over the trained tokens of each trajectory; 0 without any."""
        return self.total(per_token) / jnp.maximum(self.lengths, 1.0)


def members_of(batch: TokenBatch, *, trajectories: int) -> Members:
    """The trajectories of a batch; M = `trajectories` is the largest number that it may have."""
    if batch.group_ids is None or batch.successes is None:
        raise ValueError(
            "a loss over groups needs a batch with group_ids and successes; pass groups=True to"
            " `packing.pack`, as `training.Training` does"
        )
    index = masking.everywhere(jnp.maximum(batch.trajectory_ids, 0))
    trained = masking.everywhere(batch.loss_mask & (batch.trajectory_ids >= 0))

    def largest(values: jax.Array) -> jax.Array:
        kept = jnp.where(trained, masking.everywhere(values).astype(jnp.int32), 0)
        return jnp.zeros(trajectories, jnp.int32).at[index].max(kept)

    lengths = jnp.zeros(trajectories, jnp.float32).at[index].add(trained.astype(jnp.float32))
    advantages = jnp.where(trained, masking.everywhere(as_float(batch.token_advantages)), 0.0)
    totals = jnp.zeros(trajectories, advantages.dtype).at[index].add(advantages)
    return Members(
        present=lengths > 0,
        group_ids=largest(batch.group_ids),
        successes=largest(batch.successes) > 0,
        advantages=jax.lax.stop_gradient(totals / jnp.maximum(lengths, 1.0)),
        lengths=lengths,
        index=index,
        trained=trained,
    )


@runtime_checkable
class GroupTerm(Protocol):
    """`(log-probs [..., B, T], batch, members) → loss, diagnostics`, all of them scalars.

    It sees every trajectory of its groups, and is already divided: by the number of its questions,
    for one. Gradients flow through the log-probs alone.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names among `losses.FIELDS`, besides `group_ids` and `successes`."""
        ...

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]: ...
