"""Every problem in the order of the source, or all of a pool in a random order."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.parts.prompts.draws import shuffled
from gtpo_jax.parts.prompts.prompts import (
    Prompts,
    Proposal,
    SignalFn,
    State,
    all_groups,
    check_pool,
    even_sizes,
    in_turn,
    no_news,
)


def in_order(*, rounds: int = 1, has_signal: SignalFn = all_groups) -> Prompts:
    """Step s tries the problems from number `s · wanted · rounds` on.

    Groups without signal are replaced by further problems, in at most `rounds` rollouts. Every step
    reserves its problems, used or not, so a resumed run tries the same ones.
    """
    check_rounds(rounds)

    def propose(
        state: State,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        del state, key
        count = wanted * rounds
        numbers = jnp.asarray(step * count + jnp.arange(count), jnp.int32)
        return Proposal(numbers, even_sizes(wanted=wanted, rounds=rounds, group_size=group_size))

    return Prompts(
        init=lambda problems: (),
        propose=propose,
        observe=no_news,
        has_signal=has_signal,
        rounds=rounds,
    )


def uniform() -> Prompts:
    """Every step draws its problems from the pool, all with the same probability."""

    def init(problems: int | None) -> jax.Array:
        return jnp.zeros(check_pool(problems, "uniform"), bool)

    def propose(
        state: jax.Array,
        key: jax.Array,
        step: jax.Array | int,
        *,
        wanted: int,
        rounds: int,
        group_size: int,
    ) -> Proposal:
        del step
        order = in_turn(shuffled(key, len(state)), wanted=wanted, rounds=rounds)
        return Proposal(order, even_sizes(wanted=wanted, rounds=rounds, group_size=group_size))

    return Prompts(init=init, propose=propose, observe=no_news, pooled=True)


def check_rounds(rounds: int) -> None:
    """Raises unless there is a round."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}; 1 tries no further problems")
