"""Resemblance of action sequences: where it points to success, and where it points away."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.world import Event, Judgment, World


def resembling(*, length: int = 4, branching: int = 5, turns: int = 6) -> World:
    """The actions 0, 1, … `length - 1` have to be taken in this order; others change nothing.

    The policy observes its last action, not how far it has come. A failure that has more of the
    order is nearer to success. The last action of the order ends the episode.
    First success .017, best 1.000.
    """
    if length > branching:
        raise ValueError(f"the order has {length} actions, more than the {branching} there are")

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        done = jnp.minimum(state["done"] + (action == state["done"]), length)
        state = {"done": done, "seen": (action + 1).astype(jnp.int32)}
        return state, Event(done=done == length, facts={"progress": done.astype(float) / length})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["done"] == length
        return Judgment(success=right, solved=right)

    return World(
        name="resembling",
        claim="Does partial credit for resembling a success help?",
        actions=branching,
        observations=branching + 1,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"done": jnp.zeros((), jnp.int32), "seen": jnp.zeros((), jnp.int32)},
        observe=lambda state: state["seen"],
        step=step,
        judge=judge,
    )


def misleading(
    *, length: int = 4, branching: int = 2, decoy: float = 0.8, skill: float = 0.8
) -> World:
    """The first action chooses between the right way (0) and a decoy that never succeeds.

    On the right way all further actions have to be right: position d takes d modulo `branching`.
    The first policy chooses the decoy with probability `decoy`, and takes the same actions there
    with probability `skill`, on the right way evenly. So the nearest misses begin with the decoy,
    and to resemble a success more there leads nowhere. The policy observes way and position.
    First success .025, best 1.000.
    """

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        begins = state["position"] == 0
        lost = jnp.where(begins, action != 0, state["lost"])
        right = begins | (action == state["position"] % branching)
        position = jnp.minimum(state["position"] + 1, length)
        state = {"position": position, "lost": lost, "alive": state["alive"] & right}
        progress = jnp.where(state["alive"] & ~lost, position, 0).astype(float) / length
        return state, Event(done=position == length, facts={"progress": progress})

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        del outcome
        right = state["alive"] & ~state["lost"] & (state["position"] == length)
        return Judgment(success=right, solved=right)

    def reset(problem: jax.Array) -> dict:
        del problem
        no = jnp.zeros((), bool)
        return {"position": jnp.zeros((), jnp.int32), "lost": no, "alive": jnp.ones((), bool)}

    logits = np.zeros((2 * (length + 1), branching))
    logits[0] = np.log([1.0 - decoy] + [decoy / (branching - 1)] * (branching - 1))
    for position in range(1, length):
        row = np.full(branching, (1.0 - skill) / (branching - 1))
        row[position % branching] = skill
        logits[2 * position + 1] = np.log(row)
    return World(
        name="misleading",
        claim="Does partial credit for resembling a success mislead?",
        actions=branching,
        observations=2 * (length + 1),
        tokens=length,
        turns=length,
        reset=reset,
        observe=lambda state: 2 * state["position"] + state["lost"],
        step=step,
        judge=judge,
        logits=logits,
    )
