"""Credit: rewards of turns become advantages, link by link.

`Credit` is for values of turns what optax's `GradientTransformation` is for gradients: a pair of
pure functions, composed by `chain`, `add` and `weighted`.

    credit.chain(credit.discounted(0.9), credit.standardized(credit.group))

Rows with `included` False enter no statistics. Advantages are constants of the objective.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.inputs import check_inputs
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar

State = Any
"""State of a credit: an opaque pytree of arrays, `()` if there is none. It is checkpointed."""

Values = Callable[[jax.Array, EpisodeBatch], jax.Array]
"""`(values [M, K], episodes) → values [M, K]`."""


class Credit(NamedTuple):
    """A function from values of turns to values of turns.

    `apply(state, values [M, K], episodes) → (state, values [M, K])` is pure and jit-able.
    """

    init: Callable[[], State]
    apply: Callable[[State, jax.Array, EpisodeBatch], tuple[State, jax.Array]]
    facts: tuple[Fact, ...] = ()  # facts of trajectories that it reads
    name: str = ""  # name under which records show its values; empty: not shown
    links: tuple[Credit, ...] = ()  # links of a chain


def stateless(function: Values, *, name: str = "", needs: tuple[Fact, ...] = ()) -> Credit:
    """A credit that is a function of values and episodes; `needs` are the facts that it reads."""
    return Credit(lambda: (), lambda state, x, e: (state, function(x, e)), needs, name)


def chain(*links: Credit) -> Credit:
    """Applies one link after the other."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        return _run_links(links, state, values, episodes, {})

    needs = facts.union(*(link.facts for link in links))
    return Credit(lambda: tuple(link.init() for link in links), apply, needs, links=links)


def add(*credits_: Credit) -> Credit:
    """The sum of the results of several credits on the same values."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        pairs = [
            part.apply(before, values, episodes)
            for part, before in zip(credits_, state, strict=True)
        ]
        total = functools.reduce(jnp.add, [values for _, values in pairs])
        return tuple(after for after, _ in pairs), total

    needs = facts.union(*(part.facts for part in credits_))
    return Credit(lambda: tuple(part.init() for part in credits_), apply, needs)


def weighted(weight: Scalar, credit: Credit) -> Credit:
    """`weight` times the result of a credit."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        state, values = credit.apply(state, values, episodes)
        return state, weight * values

    return Credit(credit.init, apply, credit.facts)


class Traced(NamedTuple):
    """The advantages of a batch, and the values of the links before them."""

    state: State
    advantages: jax.Array  # [M, K] float32, 0 outside the turns of included rows, no gradient
    links: dict[str, jax.Array]  # name → values [M, K] of the links that have one


def trace(credit: Credit, state: State, values: jax.Array, episodes: EpisodeBatch) -> Traced:
    """Runs a credit and records the values of its named links."""
    check_inputs(values, episodes.turn_mask, episodes.group_ids, episodes.included)
    named: dict[str, jax.Array] = {}

    state, values = _run(credit, state, values, episodes, named)
    kept = episodes.turn_mask & episodes.included[:, None]
    advantages = jax.lax.stop_gradient(jnp.where(kept, as_float(values), 0.0))
    return Traced(state, advantages, named)


def _run(
    credit: Credit,
    state: State,
    values: jax.Array,
    episodes: EpisodeBatch,
    named: dict[str, jax.Array],
) -> tuple[State, jax.Array]:
    """Applies a credit; the values of its named links are added to `named`."""
    if credit.links:
        state, values = _run_links(credit.links, state, values, episodes, named)
    else:
        state, values = credit.apply(state, values, episodes)
    if credit.name:
        named[credit.name] = values
    return state, values


def _run_links(
    links: Sequence[Credit],
    state: State,
    values: jax.Array,
    episodes: EpisodeBatch,
    named: dict[str, jax.Array],
) -> tuple[State, jax.Array]:
    states = []
    for link, before in zip(links, state, strict=True):
        after, values = _run(link, before, values, episodes, named)
        states.append(after)
    return tuple(states), values


AdvantageFn = Callable[..., jax.Array]
"""`(turn_rewards [M, K], turn_mask [M, K], group_ids [M], included [M], **options) → advantages`"""


def as_function(make: Callable[..., Credit]) -> AdvantageFn:
    """A credit without state and facts as a plain function, for notebooks and tests:

    `(turn_rewards [M, K], turn_mask [M, K], group_ids [M], included [M], **options) → advantages
    [M, K]`, where `options` are those of `make`.
    """

    def advantages(
        turn_rewards: jax.Array,
        turn_mask: jax.Array,
        group_ids: jax.Array,
        included: jax.Array,
        **options: Any,
    ) -> jax.Array:
        check_inputs(turn_rewards, turn_mask, group_ids, included)
        nothing = jnp.zeros_like(turn_mask)
        episodes = EpisodeBatch(
            group_ids=group_ids,
            included=included,
            success=jnp.zeros_like(included),
            turn_mask=turn_mask,
            violations=nothing,
            facts={},
        )
        credit = make(**options)
        return trace(credit, credit.init(), turn_rewards, episodes).advantages

    # Its signature is not that of `make`, so `functools.wraps` would tell a wrong one.
    advantages.__name__ = advantages.__qualname__ = make.__name__.replace("_credit", "_advantages")
    advantages.__doc__, advantages.__module__ = make.__doc__, make.__module__
    return advantages
