"""The prompts part of a method in the laboratory: which problems a step takes, and how often.

A part that chooses among a pool sees the problems of the world as the pool. Others take problems
from a stream without end, in which each problem of the world has its probability. One round is
sampled: groups are neither judged nor replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab.history import History
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.parts.prompts import Outcomes, Prompts, Proposal


class Chosen(NamedTuple):
    """The problems of a step, and the group of each of its M episodes."""

    proposal: Proposal
    problems: jax.Array  # [M] int32, of each episode
    group_ids: jax.Array  # [M] int32


def choose(
    world: World,
    prompts: Prompts,
    state: Any,
    key: jax.Array,
    number: jax.Array,
    *,
    groups: int,
    size: int,
) -> Chosen:
    """The problems of step `number`: `groups` groups of `groups · size` episodes together."""
    if prompts.pooled:
        proposal = prompts.propose(state, key, number, wanted=groups, rounds=1, group_size=size)
    else:
        drawn = draw_problems(world, key, groups)
        proposal = Proposal(drawn, jnp.full(groups, size, jnp.int32))
    group_ids = jnp.repeat(
        jnp.arange(groups, dtype=jnp.int32),
        proposal.group_sizes,
        total_repeat_length=groups * size,
    )
    return Chosen(proposal, proposal.problems[group_ids], group_ids)


def draw_problems(world: World, key: jax.Array, groups: int) -> jax.Array:
    """The problem of each group."""
    if len(world.problems) == 1:
        return jnp.zeros(groups, jnp.int32)
    logits = jnp.log(jnp.asarray(world.problems))
    return jax.random.categorical(key, logits, shape=(groups,)).astype(jnp.int32)


def outcomes_of(world: World, prompts: Prompts, chosen: Chosen, sampled: History) -> Outcomes:
    """The outcomes of the problems of a step.

    Raises `ValueError` if the part needs an outcome that the laboratory does not make.
    """
    count = len(chosen.proposal.problems)

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, chosen.group_ids, num_segments=count)

    judged = sampled.judgment
    included = judged.included & jnp.ones_like(chosen.group_ids, bool)
    further = {}
    for outcome in prompts.outcomes:
        if outcome.name not in OUTCOMES:
            raise ValueError(
                f"the prompts need the outcome {outcome.name!r} ({outcome.meaning}), which the"
                f" laboratory does not make; it makes {', '.join(OUTCOMES)}"
            )
        further[outcome.name] = OUTCOMES[outcome.name](
            world, sampled, chosen.group_ids, included, count
        )
    return Outcomes(
        problems=chosen.proposal.problems,
        tried=jnp.ones(count, bool),
        sampled=total(jnp.ones_like(chosen.group_ids)),
        included=total(included.astype(jnp.int32)),
        successes=total((judged.success & included).astype(jnp.int32)),
        further=further,
    )


def _text_diversity(
    world: World, sampled: History, group_ids: jax.Array, included: jax.Array, count: int
) -> jax.Array:
    """Different n-grams of tokens over all, n = 3 or the longest that an episode has."""
    n = min(3, world.tokens)
    places = world.tokens - n + 1
    ids = jnp.zeros((len(group_ids), places), jnp.int32)
    there = jnp.broadcast_to(included[:, None], ids.shape)
    for offset in range(n):
        ids = ids * world.actions + sampled.actions[:, offset : offset + places]
        there = there & sampled.alive[:, offset : offset + places]
    found = jnp.zeros((count, world.actions**n), jnp.int32)
    found = found.at[group_ids[:, None], ids].add(there.astype(jnp.int32))
    return jnp.sum(found > 0, axis=1) / jnp.maximum(jnp.sum(found, axis=1), 1)


def _length(
    world: World, sampled: History, group_ids: jax.Array, included: jax.Array, count: int
) -> jax.Array:
    """Mean number of tokens."""
    del world
    written = jnp.where(included, jnp.sum(sampled.alive, axis=1), 0)
    total = jax.ops.segment_sum(written, group_ids, num_segments=count)
    rows = jax.ops.segment_sum(included.astype(jnp.int32), group_ids, num_segments=count)
    return total / jnp.maximum(rows, 1)


OUTCOMES: dict[str, Callable[[World, History, jax.Array, jax.Array, int], jax.Array]] = {
    "text_diversity": _text_diversity,
    "length": _length,
}
"""Name of an outcome of prompts → its numbers `[groups]`."""
