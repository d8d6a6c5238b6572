"""Chains: a number of right actions, then the answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.world import Event, Judgment, World

RIGHT, IDLE, ANSWER, BROKEN = range(4)
"""Actions: a step forward, a turn that changes nothing, the answer, a turn against the rules."""


def chain(*, needed: int = 4, turns: int = 10) -> World:
    """`needed` right actions, then the answer; idle turns are optional and cost nothing.

    The policy observes how many right actions it has taken. A broken turn is a violation of the
    format and changes nothing else.
    First success .027, best 1.000.
    """

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        done = jnp.minimum(state["done"] + (action == RIGHT), needed)
        answered = action == ANSWER
        state = {"done": done, "answered": state["answered"] | answered}
        return state, Event(
            done=answered,
            violation=action == BROKEN,
            calls=((action == RIGHT) | (action == IDLE)).astype(jnp.int32),
            call_errors=jnp.zeros((), jnp.int32),
            facts={"progress": done.astype(float) / needed},
        )

    def judge(state: dict, chance: jax.Array) -> Judgment:
        del chance
        right = state["answered"] & (state["done"] == needed)
        return Judgment(success=right, solved=right)

    return World(
        name="chain",
        claim="Does the method find a rare success, and does it drop turns that are not needed?",
        actions=4,
        observations=needed + 1,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"done": jnp.zeros((), jnp.int32), "answered": jnp.zeros((), bool)},
        observe=lambda state: state["done"],
        step=step,
        judge=judge,
        logits=np.zeros((needed + 1, 4)),
    )
