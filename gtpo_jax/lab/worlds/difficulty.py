"""Difficulty: problems that differ in how often the first policy solves them; few, or many."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.world import Event, Judgment, World


def difficulty(
    *, priors: Sequence[float] = (0.9, 0.5, 0.1, 0.02), depth: int = 2, branching: int = 4
) -> World:
    """`depth` right actions solve a problem; problem i is solved with `priors[i]` at first.

    The right action at position d of problem i is i + d modulo `branching`. The policy observes
    problem and position. All problems are equally likely and come back in later steps.
    First success .380, best 1.000.
    """
    count = len(priors)
    logits = np.zeros((count * (depth + 1), branching))
    for problem, prior in enumerate(priors):
        for position in range(depth):
            right = prior ** (1.0 / depth)
            row = np.full(branching, (1.0 - right) / (branching - 1))
            row[(problem + position) % branching] = right
            logits[problem * (depth + 1) + position] = np.log(row)

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        right = action == (state["problem"] + state["position"]) % branching
        position = jnp.minimum(state["position"] + 1, depth)
        alive = state["alive"] & right
        progress = jnp.where(alive, position, 0).astype(float) / depth
        state = {"problem": state["problem"], "position": position, "alive": alive}
        return state, Event(done=position == depth, facts={"progress": progress})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["alive"] & (state["position"] == depth)
        return Judgment(success=right, solved=right)

    def reset(problem: jax.Array) -> dict:
        return {
            "problem": jnp.asarray(problem, jnp.int32),
            "position": jnp.zeros((), jnp.int32),
            "alive": jnp.ones((), bool),
        }

    return World(
        name="difficulty",
        claim="Does the method learn hard problems beside easy ones?",
        actions=branching,
        observations=count * (depth + 1),
        tokens=depth,
        turns=depth,
        reset=reset,
        observe=lambda state: state["problem"] * (depth + 1) + state["position"],
        step=step,
        judge=judge,
        problems=(1.0 / count,) * count,
        logits=logits,
    )


def many(
    *,
    problems: int = 48,
    easiest: float = 0.98,
    hardest: float = 0.002,
    depth: int = 2,
    branching: int = 4,
) -> World:
    """More problems than a step takes, from nearly solved to nearly hopeless, in a mixed order.

    Problem i is solved with `1 / (1 + exp(−x_i))` at first, x evenly spaced between the log-odds of
    `easiest` and `hardest`; otherwise as `difficulty`.
    First success .389, best 1.000.
    """
    first, last = (math.log(p / (1.0 - p)) for p in (easiest, hardest))
    spaced = 1.0 / (1.0 + np.exp(-np.linspace(first, last, problems)))
    # A stride without a common divisor visits every problem, and neighbors differ.
    stride = next(s for s in range(problems * 5 // 8, 0, -1) if math.gcd(s, problems) == 1)
    priors = [float(spaced[i * stride % problems]) for i in range(problems)]
    world = difficulty(priors=priors, depth=depth, branching=branching)
    return world._replace(
        name="many", claim="Does the method spend its rollouts where they teach something?"
    )
