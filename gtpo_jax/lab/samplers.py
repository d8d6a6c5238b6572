"""Samplers that differ from the learner: some steps old, and with noise on their logits.

Asynchronous training samples with parameters of some steps ago, and quantized rollouts with
parameters that were rounded. Rounding is an error of every weight: it does not change from draw to
draw, so the noise is one number for each observation and action. Which numbers depends on how far
parameters move between versions, compared with the step of the rounding:

- "version": new numbers for each version of the parameters, as where they move by many steps;
- "run": the same numbers for a whole run, as where they hardly move: a bias that stays;
- "draw": new numbers for each draw, which is no rounding, but what nondeterministic kernels do.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab import facts
from gtpo_jax.lab.history import History, Noise
from gtpo_jax.lab.policies import Params, Policy, rate, score
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.types import Candidates

Kind = Literal["version", "run", "draw"]
"""How long the noise of a sampler stays the same."""


class Sampler(NamedTuple):
    """The policy that writes the episodes of a step."""

    params: Params
    version: jax.Array  # [] int32, step that began with these parameters
    noise: Noise | None = None  # None: its logits are exact


def begin(params: Params, versions: int) -> Params:
    """The last versions of the parameters, `[versions, ...]`, all of them the first ones."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (versions, *x.shape)), params)


def keep(kept: Params, params: Params, number: jax.Array) -> Params:
    """The last versions, with the parameters that step `number` begins with."""
    return jax.tree.map(lambda all_, x: all_.at[number % len(all_)].set(x), kept, params)


def of_version(kept: Params, version: jax.Array) -> Params:
    """The parameters that a step began with; the first ones for a negative step."""
    return jax.tree.map(lambda all_: all_[version % len(all_)], kept)


def noise_of(
    world: World,
    kind: Kind,
    scale: Any,
    key: jax.Array,
    *,
    version: jax.Array,
    number: jax.Array,
    episodes: int,
) -> Noise:
    """Normal noise of deviation `scale`, in nats, for the sampler of step `number`.

    It depends on `key` and on what its kind names: nothing, the version, or the draw.
    """
    if kind == "draw":
        shape = (episodes, world.tokens, world.actions)
        by_draw = scale * jax.random.normal(jax.random.fold_in(key, number), shape)
        return lambda row, place, observation: by_draw[row % episodes, place]
    if kind == "version":
        key = jax.random.fold_in(key, version)
    by_observation = scale * jax.random.normal(key, (world.observations, world.actions))
    return lambda row, place, observation: by_observation[observation]


def make_context(
    world: World,
    policy: Policy,
    sampler: Sampler,
    rows: History,
    number: jax.Array,
    *,
    learner: Params,
    first: Params,
    candidates: int = 0,
) -> facts.Context:
    """The context of the trajectories that a sampler wrote in step `number`.

    `learner` are the parameters that the step begins with, `first` those that training began with.
    The sampler's log-probs and its `candidates` likeliest actions are those of its noisy logits.
    """
    seen = rows.observations
    noise = None if sampler.noise is None else _noise_at(sampler.noise, seen)
    needs = ("collisions",)  # a fact may need them; unused, they are not computed
    scored = score(policy, sampler.params, seen, rows.actions, noise=noise, needs=needs)
    same = sampler.params is learner and noise is None
    return facts.make_context(
        world,
        rows,
        scored,
        score(policy, first, seen, rows.actions),
        number,
        version=sampler.version,
        proximal=scored if same else score(policy, learner, seen, rows.actions, needs=needs),
        candidates=_record(policy, sampler.params, noise, seen, candidates) if candidates else None,
    )


def _noise_at(noise: Noise, observations: jax.Array) -> jax.Array:
    """The noise `[M, T, A]` at the observations `[M, T]` of the trajectories of a step."""
    rows, places = (jnp.arange(size) for size in observations.shape)
    return noise(rows[:, None], places, observations)


def _record(
    policy: Policy, params: Params, noise: jax.Array | None, observations: jax.Array, count: int
) -> Candidates:
    """The `count` likeliest actions `[M, T, K]` at each observation, or all if there are fewer."""
    logits = rate(policy, params, observations)[0]
    log_probs = jax.nn.log_softmax(logits if noise is None else logits + noise, axis=-1)
    found, ids = jax.lax.top_k(log_probs, min(count, log_probs.shape[-1]))
    return Candidates(ids.astype(jnp.int32), found)
