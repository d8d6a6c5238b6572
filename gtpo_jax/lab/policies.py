"""Policies small enough that their gradients are exact: a table of logits, and a recurrent cell."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.world import World
from gtpo_jax.maths import logprobs
from gtpo_jax.parts.losses import Scores

Params = Any
"""Parameters: a pytree of arrays."""

Memory = Any
"""Memory of a policy within an episode: a pytree of arrays, `()` for a table."""


class Policy(NamedTuple):
    """A policy over the actions of a world."""

    init: Callable[[World, jax.Array], Params]  # world, key → parameters
    start: Callable[[Params], Memory]  # memory before the first observation
    apply: Callable[[Params, Memory, jax.Array], tuple[Memory, jax.Array]]
    """`(params, memory, observation) → (memory, logits [A])`, of one episode."""
    state: Callable[[Memory], jax.Array] = lambda memory: jnp.ones(1)
    """Memory after an observation → a vector as long as the features that the logits are linear in:
    those of a table are a zero for each observation, and a one."""


def table() -> Policy:
    """`π(a | o) = softmax(θ[o])_a`: one row of logits for each observation."""

    def init(world: World, key: jax.Array) -> Params:
        del key
        if world.logits is None:
            return jnp.zeros((world.observations, world.actions))
        return jnp.asarray(world.logits, jnp.result_type(float))

    return Policy(
        init, lambda params: (), lambda params, memory, observation: (memory, params[observation])
    )


def recurrent(*, width: int = 16) -> Policy:
    """A gated recurrent cell over observations: a policy that can remember what it does not see.

    `u = σ(E_u[o] + U_u h)`, `h' = (1 − u) h + u tanh(E_h[o] + U_h h)`, `logits = W h' + b[o]`. `b`
    begins with the logits of the world.
    """

    def init(world: World, key: jax.Array) -> Params:
        first, second, third, fourth, last = jax.random.split(key, 5)
        seen, size = world.observations, (width, width)
        return {
            "gate_in": 0.5 * jax.random.normal(first, (seen, width)),
            "cell_in": 0.5 * jax.random.normal(second, (seen, width)),
            "gate": jax.random.normal(third, size) / jnp.sqrt(width),
            "cell": jax.random.normal(fourth, size) / jnp.sqrt(width),
            "out": 0.1 * jax.random.normal(last, (width, world.actions)),
            "bias": table().init(world, key),
        }

    def apply(
        params: Params, memory: jax.Array, observation: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        gate = jax.nn.sigmoid(params["gate_in"][observation] + memory @ params["gate"])
        cell = jnp.tanh(params["cell_in"][observation] + memory @ params["cell"])
        memory = (1.0 - gate) * memory + gate * cell
        return memory, memory @ params["out"] + params["bias"][observation]

    return Policy(
        init,
        lambda params: jnp.zeros_like(params["gate"][0]),
        apply,
        lambda memory: jnp.append(memory, 1.0),  # the bias is a feature of length 1
    )


POLICIES: dict[str, Callable[..., Policy]] = {"table": table, "recurrent": recurrent}
"""Name → function of options that makes a policy."""


def rate(policy: Policy, params: Params, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits `[M, T, A]` and states `[M, T, D]` at the observations `[M, T]` of whole episodes."""

    def episode(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(memory: Memory, observation: jax.Array) -> tuple[Memory, tuple]:
            memory, logits = policy.apply(params, memory, observation)
            return memory, (logits, policy.state(memory))

        return jax.lax.scan(step, policy.start(params), seen)[1]

    return jax.vmap(episode)(observations)


def score(
    policy: Policy,
    params: Params,
    observations: jax.Array,
    actions: jax.Array,
    *,
    needs: Collection[str] = (),
    candidates: jax.Array | None = None,
    noise: jax.Array | None = None,
) -> Scores:
    """Log-probs and entropies of the actions `[M, T]` of whole episodes. Differentiable.

    `needs` names extras of the scores, as a loss does; `candidates [M, T, K]` are actions that
    those may need. `noise [M, T, A]` is added to the logits.
    """
    logits, states = rate(policy, params, observations)
    if noise is not None:
        logits = logits + noise
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]
    extras = logprobs.extras_at(logits, needs=needs, candidates=candidates, states=states)
    return Scores(chosen, -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1), extras)
