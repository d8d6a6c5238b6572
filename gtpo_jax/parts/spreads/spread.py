"""A spread: advantages of turns become advantages of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Trajectory


class Written(NamedTuple):
    """The tokens that the policy wrote, without prompts and tool output, padded on the right."""

    tokens: Any  # [M, L] int32
    turn_ids: Any  # [M, L] int32, −1 for padding
    entropies: Any  # [M, L] float32, nats, of the sampler; 0 where it was not measured
    logprobs: Any  # [M, L] float32, when the token was sampled; 0 where nobody sampled it


Spread = Callable[[jax.Array, Written, EpisodeBatch], jax.Array]
"""`(advantages of turns [M, K], Written, episodes) → advantages of tokens [M, L]`, pure and
jit-able. What stands on padding and on excluded trajectories does not count."""


@dataclasses.dataclass(frozen=True)
class _Needing:
    """A spread that reads facts of trajectories."""

    function: Spread
    facts: tuple[Fact, ...]

    def __call__(
        self, advantages: jax.Array, written: Written, episodes: EpisodeBatch
    ) -> jax.Array:
        return self.function(advantages, written, episodes)


def needing(spread: Spread, *needs: Fact) -> Spread:
    """The spread, with the facts of trajectories that it reads: its own, and those of the spread
    that it begins with.
    """
    return _Needing(spread, needs) if needs else spread


def facts_of(spread: Spread) -> tuple[Fact, ...]:
    """The facts of trajectories that a spread reads."""
    return spread.facts if isinstance(spread, _Needing) else ()


class Mark(NamedTuple):
    """A number of every token that a term of the loss reads as `batch.marks[name]`.

    `function(advantages of tokens [M, L], Written, episodes) → [M, L]` is computed once a step,
    with the credit, so it is the same for every update of the step and however minibatches are
    divided. Unlike a spread, it leaves the advantages alone.
    """

    name: str
    function: Callable[[jax.Array, Written, EpisodeBatch], jax.Array]
    facts: tuple[Fact, ...] = ()  # facts of trajectories that it reads


def evenly(advantages: jax.Array, written: Written, episodes: EpisodeBatch) -> jax.Array:
    """Every token has the advantage of its turn; 0 on padding."""
    del episodes
    values = jnp.take_along_axis(advantages, jnp.maximum(written.turn_ids, 0), axis=1)
    return jnp.where(written.turn_ids >= 0, values, 0.0)


def written_width(trajectories: Sequence[Trajectory]) -> int:
    """L of the written tokens of trajectories: a power of two, at least 64."""
    width = 64
    while width < max((sum(turn.own_tokens for turn in t.turns) for t in trajectories), default=0):
        width *= 2
    return width


def written_tokens(trajectories: Sequence[Trajectory], *, rows: int) -> Written:
    """The tokens of trajectories as NumPy arrays of `rows` rows, the last of them empty.

    L is a power of two, at least 64, to limit the number of shapes.
    """
    shape = (rows, written_width(trajectories))
    written = Written(
        np.zeros(shape, np.int32),
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    for row, trajectory in enumerate(trajectories):
        start = 0
        for index, turn in enumerate(trajectory.turns):
            here = (row, slice(start, start + turn.own_tokens))
            written.tokens[here] = turn.tokens[turn.given :]
            written.turn_ids[here] = index
            if len(turn.logprobs):
                written.logprobs[here] = turn.logprobs[turn.given :]
            if len(turn.entropies):
                written.entropies[here] = turn.entropies[turn.given :]
            start += turn.own_tokens
    return written
