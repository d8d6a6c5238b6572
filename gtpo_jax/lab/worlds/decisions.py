"""Decisions in a row, of which every one has to be right: hidden, or among useless tool calls."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.world import Event, Judgment, World


def fatal(*, depth: int = 5, branching: int = 2) -> World:
    """`depth` decisions; the first wrong one is fatal, but the episode goes on.

    The policy observes the number of decisions only. The right action of position d is d modulo
    `branching`.
    First success .031, best 1.000.
    """

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        right = action == state["position"] % branching
        position = jnp.minimum(state["position"] + 1, depth)
        alive = state["alive"] & right
        progress = jnp.where(alive, position, 0).astype(float) / depth
        state = {"position": position, "alive": alive}
        return state, Event(done=position == depth, facts={"progress": progress})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["alive"] & (state["position"] == depth)
        return Judgment(success=right, solved=right)

    return World(
        name="fatal",
        claim="Does the method learn anything where one hidden mistake spoils all?",
        actions=branching,
        observations=depth + 1,
        tokens=depth,
        turns=depth,
        reset=lambda problem: {"position": jnp.zeros((), jnp.int32), "alive": jnp.ones((), bool)},
        observe=lambda state: state["position"],
        step=step,
        judge=judge,
    )


def irrelevant(*, depth: int = 3, branching: int = 3, turns: int = 6, signals: int = 2) -> World:
    """`depth` decisions that have to be right, and a tool whose answers never matter.

    The last action is the tool: it takes a turn and answers with one of `signals` signals, drawn
    evenly. The policy observes the number of decisions and the last signal.
    First success .036, best 1.000.
    """
    inner = fatal(depth=depth, branching=branching)

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        tool = action == branching
        decided, event = inner.step(state["decisions"], action, chance)
        decisions = jax.tree.map(
            lambda new, old: jnp.where(tool, old, new), decided, state["decisions"]
        )
        progress = jnp.where(decisions["alive"], decisions["position"], 0).astype(float) / depth
        return {"decisions": decisions, "signal": jnp.where(tool, chance, state["signal"])}, Event(
            done=~tool & event.done,
            calls=tool.astype(jnp.int32),
            facts={"progress": progress},
        )

    return inner._replace(
        name="irrelevant",
        claim="Does the method drop a tool that never matters?",
        actions=branching + 1,
        observations=(depth + 1) * signals,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {
            "decisions": inner.reset(problem),
            "signal": jnp.zeros((), jnp.int32),
        },
        observe=lambda state: state["decisions"]["position"] * signals + state["signal"],
        step=step,
        judge=lambda state, outcome: inner.judge(state["decisions"], outcome),
        chances=(1.0 / signals,) * signals,
    )
