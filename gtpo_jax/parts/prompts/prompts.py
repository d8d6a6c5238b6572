"""Prompts: which problems come next, how many rollouts each gets, which groups are kept.

`init`, `propose` and `observe` are pure functions of arrays of fixed shapes, so one part runs in
`launch.train`, between two rollouts, and in the laboratory, inside a compiled loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import Trajectory

State = Any
"""State of a source of prompts: an opaque pytree of arrays, `()` if there is none."""

SignalFn = Callable[[Sequence[Trajectory]], bool]
"""`(all trajectories of a group) → bool`: True if the group is worth training on."""


class Proposal(NamedTuple):
    """The problems that a step may try, in the order in which it tries them."""

    problems: jax.Array  # [P] int32, numbers of training problems
    group_sizes: jax.Array  # [P] int32, trajectories per problem


class Outcome(NamedTuple):
    """A number that `observe` needs of the trajectories of a problem, beside their successes."""

    name: str
    gather: Callable[[Sequence[Trajectory]], float]  # included trajectories, at least one → number
    meaning: str


class Outcomes(NamedTuple):
    """The results of the P problems of a proposal, in its order."""

    problems: jax.Array  # [P] int32, as proposed
    tried: jax.Array  # [P] bool; the numbers of others are 0
    sampled: jax.Array  # [P] int32, trajectories
    included: jax.Array  # [P] int32, trajectories whose outcome is known
    successes: jax.Array  # [P] int32, among the included ones
    further: Mapping[str, jax.Array] = {}
    """Name of an `Outcome` → [P] float32; 0 for a problem without an included trajectory."""

    @property
    def known(self) -> jax.Array:
        """True for problems that were tried with a known outcome, `[P]`."""
        return jnp.asarray(self.tried) & (jnp.asarray(self.included) > 0)


class Propose(Protocol):
    """Proposes P = `wanted · rounds` problems, of which `wanted` groups are to be kept.

    The problems of a round, `wanted` of them, are different ones, and their sizes add up to the
    budget of the step, `wanted · group_size`. `state` and `step` may be traced; the other numbers
    are static.
    """

    def __call__(
        self,
        state: State,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal: ...


Observe = Callable[[State, Outcomes], State]
"""`(state, outcomes) → state`, after the rollouts of a step."""


def all_groups(group: Sequence[Trajectory]) -> bool:
    """Every group is worth training on."""
    del group
    return True


def no_larger(wanted: int, group_size: int) -> int:
    """The largest group where all groups have the size that the run asks for."""
    del wanted
    return group_size


class Prompts(NamedTuple):
    """Pure functions around a state, which is checkpointed with the run, and what they ask for."""

    init: Callable[[int | None], State]  # number of training problems (None: endless) → state
    propose: Propose
    observe: Observe
    has_signal: SignalFn = all_groups
    rounds: int = 1  # maximum rollouts per step
    pooled: bool = False
    """It chooses among a known number of problems, and proposes numbers below it. False: it
    proposes numbers of an endless stream of problems."""
    outcomes: tuple[Outcome, ...] = ()  # numbers that `observe` reads in `Outcomes.further`
    largest: Callable[[int, int], int] = no_larger  # wanted, group_size → largest group
    left_out: Fact | None = None
    """True `[M]` for trajectories that are left out of the loss. The statistics of their group
    count them."""


def check_pool(problems: int | None, name: str) -> int:
    """The number of training problems. Raises `ValueError` if it is not known."""
    if problems is None:
        raise ValueError(
            f"{name} chooses among a known number of training problems, and this source has no end;"
            " set train.pool, such as --train.pool 512, to train on its first problems"
        )
    return problems


def check_enough(wanted: int, problems: int) -> None:
    """Raises `ValueError` if a round would have to try a problem twice."""
    if wanted > problems:
        raise ValueError(
            f"a step tries {wanted} different problems, and there are {problems}; lower"
            " train.prompts, or give more problems"
        )


def in_turn(order: jax.Array, *, wanted: int, rounds: int) -> jax.Array:
    """The first `wanted · rounds` problems of an order `[N]` of all, which begins anew at its end.

    A later round passes over problems that were tried. Raises `ValueError` if one round would have
    to try a problem twice.
    """
    check_enough(wanted, len(order))
    return order[jnp.arange(wanted * rounds) % len(order)].astype(jnp.int32)


def even_sizes(*, wanted: int, rounds: int, group_size: int) -> jax.Array:
    """The same size for all problems of a proposal."""
    return jnp.full(wanted * rounds, group_size, jnp.int32)


def no_news(state: State, outcomes: Outcomes) -> State:
    """The state as it was, whatever became of the problems."""
    del outcomes
    return state
