"""Histories: episodes of a world, token by token, sampled from a policy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab.policies import Memory, Params, Policy
from gtpo_jax.lab.worlds.world import Event, Judgment, World

Noise = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(episode, place, observation) → [A]`, added to the logits of a draw."""


class History(NamedTuple):
    """M episodes of at most T tokens; after its end, an episode has tokens that do not count."""

    problems: jax.Array  # [M] int32
    observations: jax.Array  # [M, T] int32, before the token
    actions: jax.Array  # [M, T] int32
    alive: jax.Array  # [M, T] bool, the token belongs to the episode
    turn_ids: jax.Array  # [M, T] int32, turn of the token, −1 after the end
    events: Event  # [M, T]
    judgment: Judgment  # [M]


class Moment(NamedTuple):
    """An episode between two tokens."""

    state: Any
    turn: jax.Array  # [] int32, turns that have ended
    done: jax.Array  # [] bool


def begin(world: World, problem: jax.Array) -> Moment:
    """An episode before its first token."""
    return Moment(world.reset(problem), jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def advance(
    world: World, moment: Moment, action: jax.Array, chance: jax.Array
) -> tuple[Moment, Event]:
    """The episode after one more token. An episode that has ended stays as it is."""
    state, event = world.step(moment.state, action, chance)
    event = jax.tree.map(jnp.asarray, event)
    turn = moment.turn + event.ends_turn
    after = Moment(state, turn, event.done | (turn >= world.turns))
    after = jax.tree.map(lambda new, old: jnp.where(moment.done, old, new), after, moment)
    return after, event


def sample(
    world: World,
    policy: Policy,
    params: Params,
    key: jax.Array,
    problems: jax.Array,
    noise: Noise | None = None,
) -> History:
    """One episode of each problem `[M]`; the policy's logits may have noise."""
    keys = jax.random.split(key, len(problems))
    rows = jnp.arange(len(problems))
    one = functools.partial(_episode, world, policy, params, noise)
    return jax.vmap(one)(problems, keys, rows)


def _episode(
    world: World,
    policy: Policy,
    params: Params,
    noise: Noise | None,
    problem: jax.Array,
    key: jax.Array,
    row: jax.Array,
) -> History:
    actions_key, chance_key, verdict_key = jax.random.split(key, 3)
    chances = _draw(chance_key, world.chances, (world.tokens,))
    gumbels = jax.random.gumbel(actions_key, (world.tokens, world.actions))

    def step(
        carry: tuple[Moment, Memory], drawn: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[Moment, Memory], tuple]:
        moment, memory = carry
        chance, gumbel, place = drawn
        observation = jnp.asarray(world.observe(moment.state), jnp.int32)
        memory, logits = policy.apply(params, memory, observation)
        if noise is not None:
            logits = logits + noise(row, place, observation)
        action = jnp.argmax(logits + gumbel).astype(jnp.int32)
        after, event = advance(world, moment, action, chance)
        alive = ~moment.done
        turn = jnp.where(alive, moment.turn, -1)
        return (after, memory), (observation, action, alive, turn, event)

    begun = (begin(world, problem), policy.start(params))
    (moment, _), recorded = jax.lax.scan(step, begun, (chances, gumbels, jnp.arange(world.tokens)))
    observations, taken, alive, turn_ids, events = recorded
    judgment = world.judge(moment.state, _draw(verdict_key, world.verdicts, ()))
    return History(
        problems=problem,
        observations=observations,
        actions=taken,
        alive=alive,
        turn_ids=turn_ids,
        events=events,
        judgment=jax.tree.map(jnp.asarray, judgment),
    )


def _draw(key: jax.Array, probabilities: tuple[float, ...], shape: tuple[int, ...]) -> jax.Array:
    if len(probabilities) == 1:
        return jnp.zeros(shape, jnp.int32)
    logits = jnp.log(jnp.asarray(probabilities))
    return jax.random.categorical(key, logits, shape=shape).astype(jnp.int32)
