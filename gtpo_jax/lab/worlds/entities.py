"""Entities: facts that searches find one by one, all of which the answer needs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.world import Event, Judgment, World


def entities(*, count: int = 3, turns: int = 6, finds: float = 0.8) -> World:
    """Action i < `count` searches entity i and finds it with probability `finds`; then the answer.

    The policy observes which entities it has found. The answer is right if all of them are.
    `entity_hits` counts those found in the episode, `entity_count` those there are.
    First success .059, best .942.
    """

    def hits(state: dict) -> jax.Array:
        bits = (state["found"] >> jnp.arange(count, dtype=jnp.int32)) & 1
        return jnp.sum(bits, dtype=jnp.int32)

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        search = action < count
        bit = jnp.where(search & (chance == 0), jnp.left_shift(1, action), 0)
        state = {
            "found": (state["found"] | bit).astype(jnp.int32),
            "answered": state["answered"] | ~search,
        }
        return state, Event(
            done=~search,
            calls=search.astype(jnp.int32),
            facts={"progress": hits(state).astype(float) / count},
        )

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        found = hits(state)
        right = state["answered"] & (found == count)
        facts = {"entity_hits": found, "entity_count": jnp.full((), count, jnp.int32)}
        return Judgment(success=right, solved=right, facts=facts)

    return World(
        name="entities",
        claim="Does credit for entities found on the way help?",
        actions=count + 1,
        observations=2**count,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"found": jnp.zeros((), jnp.int32), "answered": jnp.zeros((), bool)},
        observe=lambda state: state["found"],
        step=step,
        judge=judge,
        chances=(finds, 1.0 - finds) if finds < 1.0 else (1.0,),
    )
