"""Histories as the batches that methods see: `EpisodeBatch` and `TokenBatch`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from gtpo_jax.lab.facts import (
    FACTS,
    FROM_PROGRESS,
    OF_GROUPS,
    Context,
    at_tokens,
    sums_of_turns,
)
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.spreads import Written
from gtpo_jax.types import EpisodeBatch, TokenBatch


def known_facts(world: World) -> frozenset[str]:
    """Names of the facts that a world provides."""
    of_turns, judged = jax.eval_shape(lambda: _one_step(world))
    own = {*of_turns, *judged, *(("agents", "parents") if world.rows > 1 else ())}
    return frozenset({*FACTS, *OF_GROUPS, *own, *(FROM_PROGRESS if "progress" in own else ())})


def _one_step(world: World) -> tuple[dict, dict]:
    zero = jnp.zeros((), jnp.int32)
    state, event = world.step(world.reset(zero), zero, zero)
    return dict(event.facts), dict(world.judge(state, zero).facts)


def episode_batch(context: Context, group_ids: jax.Array, needs: Iterable[Fact]) -> EpisodeBatch:
    """The inputs of credit assignment, with the facts that a method needs.

    Raises `ValueError` if the world does not provide one of them.
    """
    history = context.history
    turn_facts, judged = history.events.facts, history.judgment.facts
    facts: dict[str, Any] = {}
    for fact in needs:
        if fact.name in context.known:
            facts[fact.name] = context.known[fact.name]
        elif fact.name in judged:
            facts[fact.name] = judged[fact.name]
        elif fact.name in turn_facts:
            facts[fact.name] = at_tokens(context.last, turn_facts[fact.name])
        elif fact.name in FACTS:
            facts[fact.name] = FACTS[fact.name](context)
        elif fact.name in OF_GROUPS:
            facts[fact.name] = OF_GROUPS[fact.name](context, group_ids)
        elif fact.name in FROM_PROGRESS and "progress" in turn_facts:
            facts[fact.name] = FROM_PROGRESS[fact.name](context)
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
        violations=sums_of_turns(context, history.events.violation.astype(jnp.int32)) > 0,
        facts=facts,
    )


def left_out(context: Context, fact: Fact | None) -> jax.Array:
    """True for the episodes `[M]` that the prompts of a method leave out of the loss."""
    none = jnp.zeros(len(context.history.actions), bool)
    if fact is None:
        return none
    return episode_batch(context, none.astype(jnp.int32), (fact,)).facts[fact.name]


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
        proximal_logprobs=context.proximal.logprobs,
        reference_logprobs=context.reference.logprobs,
        candidates=context.candidates,
    )


def written(context: Context) -> Written:
    """The tokens of the episodes, as a spread sees them."""
    history = context.history
    return Written(
        history.actions, history.turn_ids, context.scored.entropies, context.scored.logprobs
    )
