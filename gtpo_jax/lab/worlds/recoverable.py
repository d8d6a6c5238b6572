"""Recoverable errors: a call may fail, the observation says so, and it can be repaired."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.odds import odds
from gtpo_jax.lab.worlds.world import Event, Judgment, World

CALL, FIX, ANSWER = range(3)
"""Actions: a call, the repair of a call that failed, the answer."""


def recoverable(
    *, needed: int = 2, turns: int = 8, fails: float = 0.5, repairs: float = 0.8
) -> World:
    """`needed` calls have to succeed before the answer.

    A call fails with probability `fails`. From then on calling again fails for certain; a repair
    makes the call succeed with probability `repairs`. A repair of nothing changes nothing. The
    policy observes how many calls succeeded and whether the last one failed.
    First success .097, best .998.
    """
    levels = odds([0.0, 1.0 - fails, repairs])

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        failed = state["failed"]
        works = (action == CALL) & ~failed & levels.right(jnp.asarray(1), chance)
        works |= (action == FIX) & failed & levels.right(jnp.asarray(2), chance)
        open_ = state["done"] < needed
        error = open_ & ~works & ((action == CALL) | ((action == FIX) & failed))
        done = jnp.minimum(state["done"] + works, needed)
        answered = action == ANSWER
        state = {
            "done": done,
            "failed": (failed | error) & ~works,
            "answered": state["answered"] | answered,
        }
        return state, Event(
            done=answered,
            calls=(~answered).astype(jnp.int32),
            call_errors=error.astype(jnp.int32),
            facts={"progress": done.astype(float) / needed},
        )

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["answered"] & (state["done"] == needed)
        return Judgment(success=right, solved=right)

    def reset(problem: jax.Array) -> dict:
        del problem
        no = jnp.zeros((), bool)
        return {"done": jnp.zeros((), jnp.int32), "failed": no, "answered": no}

    return World(
        name="recoverable",
        claim="Does the method learn to repair what failed instead of repeating it or giving up?",
        actions=3,
        observations=2 * (needed + 1),
        tokens=turns,
        turns=turns,
        reset=reset,
        observe=lambda state: 2 * state["done"] + state["failed"],
        step=step,
        judge=judge,
        chances=levels.outcomes,
    )
