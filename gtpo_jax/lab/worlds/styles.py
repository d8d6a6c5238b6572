"""Styles: several right ways, one of which is much more likely at first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.world import Event, Judgment, World


def styles(*, ways: int = 4, depth: int = 2, likely: float = 0.3, unlikely: float = 0.02) -> World:
    """`depth` turns, each of them right in any of `ways` styles; the last action is wrong.

    The first policy takes style 0 with probability `likely`, each other style with `unlikely`. The
    policy observes the position. Success does not ask for diversity: a method that sharpens the
    policy loses the unlikely styles and succeeds nevertheless; the entropy tells.
    First success .130, best 1.000.
    """
    row = np.log([likely] + [unlikely] * (ways - 1) + [1.0 - likely - unlikely * (ways - 1)])

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        wrong = action == ways
        position = jnp.minimum(state["position"] + 1, depth)
        alive = state["alive"] & ~wrong
        progress = jnp.where(alive, position, 0).astype(float) / depth
        state = {"position": position, "alive": alive}
        return state, Event(done=position == depth, facts={"progress": progress})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["alive"] & (state["position"] == depth)
        return Judgment(success=right, solved=right)

    def reset(problem: jax.Array) -> dict:
        del problem
        return {"position": jnp.zeros((), jnp.int32), "alive": jnp.ones((), bool)}

    return World(
        name="styles",
        claim="Does the method keep right ways that are unlikely?",
        actions=ways + 1,
        observations=depth + 1,
        tokens=depth,
        turns=depth,
        reset=reset,
        observe=lambda state: state["position"],
        step=step,
        judge=judge,
        logits=np.tile(row, (depth + 1, 1)),
    )
