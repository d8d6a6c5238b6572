"""Histories as the batches that methods see: `EpisodeBatch`, `TokenBatch` and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab.history import History
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.parts.facts import Code, Fact
from gtpo_jax.parts.losses import Scores
from gtpo_jax.parts.spreads import Written
from gtpo_jax.types import EpisodeBatch, TokenBatch


class Context(NamedTuple):
    """All that facts are computed from."""

    world: World
    history: History
    turns: jax.Array  # [M, T, K] bool, token t belongs to turn k
    first: jax.Array  # [M, T, K] bool, token t is the first of turn k
    last: jax.Array  # [M, T, K] bool, token t is the last of turn k
    scored: Scores  # under the policy that sampled
    reference: Scores  # under the policy that training began with
    step: jax.Array  # [] int32, number of the update


def make_context(
    world: World, history: History, scored: Scores, reference: Scores, step: jax.Array
) -> Context:
    """The context of the facts of a history."""
    ids = history.turn_ids[..., None]
    turns = ids == jnp.arange(world.turns)
    after = jnp.pad(turns[:, 1:], ((0, 0), (0, 1), (0, 0)))
    before = jnp.pad(turns[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return Context(world, history, turns, turns & ~before, turns & ~after, scored, reference, step)


def _sums(context: Context, values: jax.Array) -> jax.Array:
    """Sums `[M, K]` over the tokens of each turn."""
    return jnp.sum(jnp.where(context.turns, values[..., None], 0), axis=1)


def _at(places: jax.Array, values: jax.Array) -> jax.Array:
    """The values `[M, K]` at one token of each turn."""
    return jnp.sum(jnp.where(places, values[..., None], 0), axis=1)


def _counts(context: Context) -> jax.Array:
    return jnp.sum(context.turns, axis=1, dtype=jnp.int32)


def _means(context: Context, values: jax.Array) -> jax.Array:
    return _sums(context, values) / jnp.maximum(_counts(context), 1)


def _actions(context: Context) -> jax.Array:
    """An id of the tokens of each turn."""
    place = jnp.cumsum(context.turns, axis=1, dtype=jnp.int32)
    digits = (context.history.actions[..., None] + 1) * (
        jnp.int32(context.world.actions + 1) ** jnp.minimum(place - 1, 8)
    )
    return jnp.sum(jnp.where(context.turns, digits, 0), axis=1).astype(jnp.int32)


def _answers(context: Context) -> jax.Array:
    """The id of the last turn of an episode that ended by itself, else −1."""
    turn = jnp.max(context.history.turn_ids, axis=1)
    ended = jnp.any(context.history.events.done & context.history.alive, axis=1)
    ids = jnp.take_along_axis(_actions(context), jnp.maximum(turn, 0)[:, None], axis=1)[:, 0]
    return jnp.where(ended, ids, -1)


def _code(context: Context) -> Code:
    alive = context.history.alive
    values = jnp.where(alive, context.history.actions + 1, 0).astype(jnp.int32)
    return Code(values, jnp.sum(alive, axis=1, dtype=jnp.int32))


def _reference_answers(context: Context) -> jax.Array:
    turn = jnp.maximum(jnp.max(context.history.turn_ids, axis=1), 0)
    means = _means(context, context.reference.logprobs)
    return jnp.take_along_axis(means, turn[:, None], axis=1)[:, 0]


def _states(context: Context) -> jax.Array:
    """The observation before each turn, `[M, K, O]`, as a vector of zeros and a one."""
    seen = _at(context.first, context.history.observations)
    return jax.nn.one_hot(seen, context.world.observations)


FACTS: dict[str, Callable[[Context], Any]] = {
    "calls": lambda c: _sums(c, c.history.events.calls).astype(jnp.int32),
    "call_errors": lambda c: _sums(c, c.history.events.call_errors).astype(jnp.int32),
    "turn_tokens": _counts,
    "response_tokens": lambda c: jnp.sum(c.history.alive, axis=1, dtype=jnp.int32),
    "turn_entropies": lambda c: _means(c, c.scored.entropies),
    "turn_logprobs": lambda c: _means(c, c.scored.logprobs),
    "anchors": lambda c: _at(c.first, c.history.observations).astype(jnp.int32),
    "actions": _actions,
    "answers": _answers,
    "problems": lambda c: c.history.problems,
    "versions": lambda c: jnp.broadcast_to(c.step, c.turns[:, 0].shape),
    "step": lambda c: jnp.broadcast_to(c.step, c.history.problems.shape),
    "code": _code,
    "policy_states": lambda c: jnp.sum(_states(c) * jnp.any(c.turns, 1)[..., None], axis=1),
    "turn_states": _states,
    "reference_answer_logprobs": _reference_answers,
}
"""Name → facts that the laboratory makes for every world; worlds add theirs."""


def known_facts(world: World) -> frozenset[str]:
    """Names of the facts that a world provides."""
    history = jax.eval_shape(lambda: _one_step(world))
    return frozenset(FACTS) | set(history[0]) | set(history[1])


def _one_step(world: World) -> tuple[dict, dict]:
    zero = jnp.zeros((), jnp.int32)
    state, event = world.step(world.reset(zero), zero, zero)
    return dict(event.facts), dict(world.judge(state, zero).facts)


def provides(world: World, needs: Iterable[Fact]) -> bool:
    """True if the world provides all facts that a method needs."""
    known = known_facts(world)
    return all(fact.name in known for fact in needs)


def episode_batch(context: Context, group_ids: jax.Array, needs: Iterable[Fact]) -> EpisodeBatch:
    """The inputs of credit assignment, with the facts that a method needs.

    Raises `ValueError` if the world does not provide one of them.
    """
    history = context.history
    turn_facts, judged = history.events.facts, history.judgment.facts
    facts: dict[str, Any] = {}
    for fact in needs:
        if fact.name in judged:
            facts[fact.name] = judged[fact.name]
        elif fact.name in turn_facts:
            facts[fact.name] = _at(context.last, turn_facts[fact.name])
        elif fact.name in FACTS:
            facts[fact.name] = FACTS[fact.name](context)
        else:
            raise ValueError(
                f"the method needs the fact {fact.name!r} ({fact.meaning}), which the world"
                f" {context.world.name} does not provide; it provides"
                f" {', '.join(sorted(known_facts(context.world)))}"
            )
    return EpisodeBatch(
        group_ids=group_ids,
        included=history.judgment.included,
        success=history.judgment.success & history.judgment.included,
        turn_mask=jnp.any(context.turns, axis=1),
        violations=_sums(context, history.events.violation.astype(jnp.int32)) > 0,
        facts=facts,
    )


def token_batch(context: Context, included: jax.Array, token_advantages: jax.Array) -> TokenBatch:
    """One row for each episode, its tokens from the first on."""
    history = context.history
    rows, length = history.actions.shape
    trained = history.alive & included[:, None]
    return TokenBatch(
        tokens=history.actions,
        positions=jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length)),
        segment_ids=history.alive.astype(jnp.int32),
        loss_mask=trained,
        turn_ids=history.turn_ids,
        trajectory_ids=jnp.where(
            history.alive, jnp.arange(rows, dtype=jnp.int32)[:, None], jnp.int32(-1)
        ),
        behavior_logprobs=context.scored.logprobs,
        token_advantages=jnp.where(trained, token_advantages, 0.0),
        proximal_logprobs=context.scored.logprobs,
        reference_logprobs=context.reference.logprobs,
    )


def written(context: Context) -> Written:
    """The tokens of the episodes, as a spread sees them."""
    history = context.history
    return Written(
        history.actions, history.turn_ids, context.scored.entropies, context.scored.logprobs
    )
