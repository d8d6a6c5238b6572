"""Recurring states: a walk over a square of cells, in circles or to the goal."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.world import Event, Judgment, World

DOWN, RIGHT, UP, LEFT = range(4)
"""Actions: moves to a neighboring cell; a move against the wall changes nothing."""


def recurring(*, width: int = 3, turns: int = 6, slip: float = 0.0) -> World:
    """A walk from one corner of a square of `width`² cells to the opposite one ends in success.

    The policy observes its cell, so states recur in and between episodes. A move is lost with
    probability `slip`.
    First success .085, best 1.000.
    """
    last = width - 1

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        moves = jnp.asarray([[1, 0], [0, 1], [-1, 0], [0, -1]], jnp.int32)
        move = jnp.where(chance == 0, moves[action], 0)
        row = jnp.clip(state["row"] + move[0], 0, last)
        column = jnp.clip(state["column"] + move[1], 0, last)
        return {"row": row, "column": column}, Event(
            done=row + column == 2 * last,
            calls=jnp.ones((), jnp.int32),
            facts={"progress": (row + column).astype(float) / (2 * last)},
        )

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["row"] + state["column"] == 2 * last
        return Judgment(success=right, solved=right)

    return World(
        name="recurring",
        claim="Does the method use that states recur?",
        actions=4,
        observations=width * width,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"row": jnp.zeros((), jnp.int32), "column": jnp.zeros((), jnp.int32)},
        observe=lambda state: state["row"] * width + state["column"],
        step=step,
        judge=judge,
        chances=(1.0 - slip, slip) if slip else (1.0,),
    )
