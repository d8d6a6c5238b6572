"""Two agents: one delegates, the other one works, and they share the verdict."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.world import Event, Judgment, World

RIGHT, WRONG, ANSWER, BROKEN = range(4)
"""Actions of both: good or bad instruction or work, the answer, a turn against the rules."""

MAIN, SUB = range(2)
"""Agents."""


def agents(*, needed: int = 2, turns: int = 7, skill: float = 0.4) -> World:
    """The main agent instructs the sub agent `needed` times, then answers.

    Right work under a right instruction finishes a piece; after any work the main agent has the
    turn again. A broken turn is repeated by the same agent; an answer of the sub agent is bad work.
    The main agent observes the number of pieces, the sub agent also whether its instruction is
    good. Both are right with probability `skill` at first. The fact `agent` names the agent of the
    turn.
    First success .019, best 1.000.
    """

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        agent = state["agent"]
        main, broken = agent == MAIN, action == BROKEN
        answered = main & (action == ANSWER)
        good = jnp.where(main, action == RIGHT, state["good"])
        piece = ~main & (action == RIGHT) & state["good"]
        done = jnp.minimum(state["done"] + piece, needed)
        state = {
            "agent": jnp.where(broken | answered, agent, 1 - agent),
            "good": jnp.where(broken, state["good"], good),
            "done": done,
            "answered": state["answered"] | answered,
        }
        return state, Event(
            done=answered,
            violation=broken,
            calls=(~answered & ~broken).astype(jnp.int32),
            facts={"agent": agent, "progress": done.astype(float) / needed},
        )

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["answered"] & (state["done"] == needed)
        return Judgment(success=right, solved=right)

    def reset(problem: jax.Array) -> dict:
        del problem
        zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        return {"agent": zero, "good": no, "done": zero, "answered": no}

    def observe(state: dict) -> jax.Array:
        sub = 1 + state["good"].astype(jnp.int32)
        return 3 * state["done"] + jnp.where(state["agent"] == MAIN, 0, sub)

    return World(
        name="agents",
        claim="Does each agent learn its own part from a verdict that both share?",
        actions=4,
        observations=3 * (needed + 1),
        tokens=turns,
        turns=turns,
        reset=reset,
        observe=observe,
        step=step,
        judge=judge,
        logits=np.tile(np.log([skill] + [(1.0 - skill) / 3] * 3), (3 * (needed + 1), 1)),
        rows=2,
    )
