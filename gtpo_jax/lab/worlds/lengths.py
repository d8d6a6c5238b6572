"""Lengths: turns of several tokens, some of which have to be long and some need not be."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.world import Event, Judgment, World

STOP, WORD = range(2)
"""Tokens: the end of the turn, and a word, which ends the turn only where it is cut off."""


def lengths(*, stages: int = 4, longest: int = 4, needed: int = 2, turns: int = 6) -> World:
    """Stages take turns: even ones need at least `needed` words, odd ones none.

    A turn has 1 to `longest` tokens and is cut off without effect if its last token is a word. So
    long turns are useful in even stages and harmless but useless in odd ones. The policy observes
    stage and words of the turn. The last stage passed is success.
    First success .153, best 1.000.
    """
    if needed >= longest:
        raise ValueError(f"{needed} words and the end do not fit into {longest} tokens")

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        stop = action == STOP
        enough = (state["stage"] % 2 == 1) | (state["words"] >= needed)
        stage = jnp.minimum(state["stage"] + (stop & enough), stages)
        words = state["words"] + 1
        ends = stop | (words == longest)
        return {"stage": stage, "words": jnp.where(ends, 0, words)}, Event(
            ends_turn=ends, done=stage == stages, facts={"progress": stage.astype(float) / stages}
        )

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["stage"] == stages
        return Judgment(success=right, solved=right)

    return World(
        name="lengths",
        claim="Does the method keep long turns where they are useful and cut them elsewhere?",
        actions=2,
        observations=(stages + 1) * longest,
        tokens=turns * longest,
        turns=turns,
        reset=lambda problem: {
            "stage": jnp.zeros((), jnp.int32),
            "words": jnp.zeros((), jnp.int32),
        },
        observe=lambda state: state["stage"] * longest + state["words"],
        step=step,
        judge=judge,
    )
