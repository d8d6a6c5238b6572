"""Plans: the first turn chooses one, later turns solve the problem under it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.odds import odds
from gtpo_jax.lab.worlds.world import Event, Judgment, World


def plans(
    *, qualities: Sequence[float] = (0.9, 0.5, 0.2), depth: int = 2, favorite: float = 0.7
) -> World:
    """Plan i, carried out without a mistake, succeeds with probability `qualities[i]`.

    Position d of plan i takes action i + d modulo the number of plans. The first policy chooses
    the last plan with probability `favorite`, the others evenly, and carries all out by chance.
    The policy observes its plan and the position. The fact `plans` is the plan of the episode.
    First success .039, best .900.
    """
    count = len(qualities)
    levels = odds([*qualities, 0.0])
    logits = np.zeros((1 + count * (depth + 1), count))
    logits[0] = np.log([(1.0 - favorite) / (count - 1)] * (count - 1) + [favorite])

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        plan, chosen = state["plan"], state["chosen"]
        right = action == (plan + state["position"]) % count
        position = jnp.minimum(state["position"] + chosen, depth)
        state = {
            "plan": jnp.where(chosen, plan, action).astype(jnp.int32),
            "chosen": jnp.ones((), bool),
            "position": position,
            "alive": state["alive"] & (right | ~chosen),
        }
        return state, Event(done=position == depth)

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        right = state["alive"] & (state["position"] == depth)
        right = levels.right(jnp.where(right, state["plan"], count), outcome)
        return Judgment(success=right, solved=right, facts={"plans": state["plan"]})

    def reset(problem: jax.Array) -> dict:
        del problem
        zero = jnp.zeros((), jnp.int32)
        no, yes = jnp.zeros((), bool), jnp.ones((), bool)
        return {"plan": zero, "chosen": no, "position": zero, "alive": yes}

    def observe(state: dict) -> jax.Array:
        place = 1 + state["plan"] * (depth + 1) + state["position"]
        return jnp.where(state["chosen"], place, 0)

    return World(
        name="plans",
        claim="Does the method find the better plan while it carries out all of them badly?",
        actions=count,
        observations=1 + count * (depth + 1),
        tokens=1 + depth,
        turns=1 + depth,
        reset=reset,
        observe=observe,
        step=step,
        judge=judge,
        verdicts=levels.outcomes,
        logits=logits,
    )
