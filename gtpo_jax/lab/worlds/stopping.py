"""Stopping: the policy decides how many turns it takes, and every turn earns a score."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.odds import odds
from gtpo_jax.lab.worlds.world import Event, Judgment, World

STOP, GO = range(2)
"""Actions: the episode ends with this turn, or goes on."""


def stopping(
    *,
    turns: int = 8,
    success: float = 0.6,
    decline: float = 0.02,
    score: float = 1.0,
    chance: float = 0.5,
) -> World:
    """Each turn earns `score` with probability `chance`; further turns are of no use.

    An episode of k turns succeeds with probability `success - decline (k - 1)`, whatever it earned
    on the way. The policy observes the number of turns taken. A method that normalizes turn scores
    per turn index compares long episodes with long ones only, which hides that one more turn is
    worth nothing (reported as verl#7244); one that adds them up pays for every further turn.
    First success .580, best .600.
    """
    rights = odds([success - decline * taken for taken in range(turns)])

    def step(state: dict, action: jax.Array, outcome: jax.Array) -> tuple[dict, Event]:
        scored = jnp.asarray(jnp.where(outcome == 0, score, 0.0), float)
        state = {"taken": jnp.minimum(state["taken"] + 1, turns)}
        return state, Event(done=action == STOP, facts={"turn_scores": scored})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        right = rights.right(jnp.maximum(state["taken"] - 1, 0), outcome)
        return Judgment(success=right, solved=right)

    return World(
        name="stopping",
        claim="Does the method take turns that earn a score but bring no success?",
        actions=2,
        observations=turns + 1,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"taken": jnp.zeros((), jnp.int32)},
        observe=lambda state: state["taken"],
        step=step,
        judge=judge,
        chances=(chance, 1.0 - chance),
        verdicts=rights.outcomes,
    )
