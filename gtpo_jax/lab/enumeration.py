"""All episodes of a world, and the exact gradient of expected success.

    J(θ) = Σ_paths Pr(chance) Π_t π_θ(a_t | o_t) · solved

Chance does not depend on the policy, so the gradient of this sum is exact. Use it under
`jax.enable_x64` for float64.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.history import History, Moment, advance, begin
from gtpo_jax.lab.policies import Params, Policy, score
from gtpo_jax.lab.worlds.world import Event, World

LIMIT = 200_000
"""Largest number of paths, unless another one is passed."""


class Paths(NamedTuple):
    """Every episode that a world can produce, each once."""

    history: History
    chance: jax.Array  # [N], probability of all outcomes of chance, the problem among them


def enumerate_paths(world: World, *, limit: int = LIMIT) -> Paths:
    """All paths of a world. Raises `ValueError` if there are more than `limit`."""
    level = _Level.first(world)
    for _ in range(world.tokens):
        level = level.next(world, limit)
    return level.judged(world)


def path_probabilities(paths: Paths, policy: Policy, params: Params) -> jax.Array:
    """The probability `[N]` of each path under a policy."""
    scores = score(policy, params, paths.history.observations, paths.history.actions)
    logprobs = jnp.where(paths.history.alive, scores.logprobs, 0.0)
    return paths.chance * jnp.exp(jnp.sum(logprobs, axis=1))


def turn_values(paths: Paths, probabilities: np.ndarray, turns: int) -> np.ndarray:
    """The exact value `[N, K]` before each turn: the probability of success given all that was
    seen and done until then; 0 where a path has no such turn.

    It is what the mean success of any number of fresh rollouts from there is on average.
    """
    history = jax.device_get(paths.history)
    solved = np.asarray(history.judgment.success & history.judgment.included, np.float64)
    values = np.zeros((len(solved), turns))
    for k in range(turns):
        begins = np.argmax(history.turn_ids == k, axis=1)
        pools: dict[tuple, list[int]] = {}
        for path in np.flatnonzero(np.any(history.turn_ids == k, axis=1)):
            at = begins[path]
            seen = history.observations[path, : at + 1].tobytes()
            done = history.actions[path, :at].tobytes()
            pools.setdefault((int(history.problems[path]), seen, done), []).append(int(path))
        for pool in pools.values():
            weights = probabilities[pool]
            values[pool, k] = weights @ solved[pool] / max(weights.sum(), 1e-300)
    return values


def expected_success(paths: Paths, policy: Policy, params: Params) -> jax.Array:
    """The probability that an episode is truly solved."""
    return jnp.sum(path_probabilities(paths, policy, params) * paths.history.judgment.solved)


class _Level(NamedTuple):
    """All beginnings of episodes of one length; ended ones are carried along unchanged."""

    moment: Moment  # [N]
    problems: np.ndarray  # [N]
    chance: np.ndarray  # [N]
    tokens: list[tuple]  # per token: observations, actions, alive, turn ids, events, each [N]

    @classmethod
    def first(cls, world: World) -> _Level:
        problems = np.arange(len(world.problems), dtype=np.int32)
        moment = jax.vmap(lambda p: begin(world, p))(problems)
        return cls(moment, problems, np.array(world.problems), [])

    def next(self, world: World, limit: int) -> _Level:
        """Every beginning with every action and every outcome of chance."""
        done = np.asarray(self.moment.done)
        branches = [np.where(done, 1, world.actions), np.where(done, 1, len(world.chances))]
        counts = branches[0] * branches[1]
        if counts.sum() > limit:
            raise ValueError(
                f"the world {world.name} has more than {limit} paths; make it smaller, by fewer"
                " turns, actions or outcomes of chance, or audit it from samples"
            )
        parent = np.repeat(np.arange(len(done)), counts)
        rank = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
        actions = (rank % branches[0][parent]).astype(np.int32)
        chances = (rank // branches[0][parent]).astype(np.int32)
        moment = jax.tree.map(lambda x: jnp.asarray(x)[parent], self.moment)
        observations = jax.vmap(world.observe)(moment.state)
        after, events = jax.vmap(lambda m, a, c: advance(world, m, a, c))(moment, actions, chances)
        alive = ~done[parent]
        turns = np.where(alive, np.asarray(moment.turn), -1).astype(np.int32)
        drawn = np.where(alive, np.array(world.chances)[chances], 1.0)
        tokens = [jax.tree.map(lambda x: np.asarray(x)[parent], token) for token in self.tokens]
        tokens.append((np.asarray(observations, np.int32), actions, alive, turns, events))
        return _Level(after, self.problems[parent], self.chance[parent] * drawn, tokens)

    def judged(self, world: World) -> Paths:
        """The paths, each with every verdict."""
        count, verdicts = len(self.problems), len(world.verdicts)
        parent = np.repeat(np.arange(count), verdicts)
        verdict = np.tile(np.arange(verdicts, dtype=np.int32), count)
        state = jax.tree.map(lambda x: jnp.asarray(x)[parent], self.moment.state)
        judgment = jax.vmap(world.judge)(state, jnp.asarray(verdict))
        observations, actions, alive, turns, events = (
            jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs, axis=1)[parent]), *parts)
            for parts in zip(*self.tokens, strict=True)
        )
        history = History(
            problems=jnp.asarray(self.problems[parent]),
            observations=observations,
            actions=actions,
            alive=alive,
            turn_ids=turns,
            events=Event(*events),
            judgment=jax.tree.map(jnp.asarray, judgment),
        )
        chance = self.chance[parent] * np.array(world.verdicts)[verdict]
        return Paths(history, jnp.asarray(chance))
