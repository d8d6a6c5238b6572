"""The batch of `benchmarks.credit`, and the chain as plain NumPy loops."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

WEIGHT, PENALTY, DISCOUNT, EPS = 0.5, 0.1, 0.9, 1e-6
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


class Facts(NamedTuple):
    """A batch as input of the chain: M trajectories of K turns, one in each row of T tokens."""

    success: jax.Array  # [M] bool
    included: jax.Array  # [M] bool
    group_ids: jax.Array  # [M] int32
    similarity: jax.Array  # [M, M] float32
    violations: jax.Array  # [M, K] bool
    turn_mask: jax.Array  # [M, K] bool
    trajectory_ids: jax.Array  # [M, T] int32
    turn_ids: jax.Array  # [M, T] int32
    loss_mask: jax.Array  # [M, T] bool
    policy_logprobs: jax.Array  # [M, T] float32
    behavior_logprobs: jax.Array  # [M, T] float32


def make_facts(
    *, trajectories: int, group_size: int, turns: int, tokens: int, seed: int = 0
) -> Facts:
    """Random facts as NumPy arrays; about 7 in 10 tokens are the policy's, the last tokens are
    padding.
    """
    if trajectories % group_size or tokens < 16 * turns:
        raise ValueError(
            "trajectories must be a multiple of group_size and tokens at least 16 · turns, got"
            f" {trajectories} / {group_size} and {tokens} / {turns}"
        )
    rng = np.random.default_rng(seed)
    turn_ids = np.full((trajectories, tokens), -1, np.int32)
    for row in turn_ids:
        prompt = int(rng.integers(1, tokens // 16))
        shares = rng.dirichlet(np.full(turns, 8.0))
        spans = 2 + shares * (tokens * rng.uniform(0.95, 1.0) - prompt - 2 * turns)
        ends = prompt + np.cumsum(spans).astype(int)
        for turn, (start, end) in enumerate(zip([prompt, *ends], ends, strict=False)):
            row[start : start + max(1, int((end - start) * rng.uniform(0.6, 0.9)))] = turn
    shape = (trajectories, tokens)
    behavior = -rng.random(shape, np.float32)
    alike = rng.random((trajectories, trajectories), np.float32)
    # NumPy arrays, which become JAX arrays in the jitted chain.
    fields: dict[str, Any] = {
        "success": rng.random(trajectories) < 0.4,
        "included": np.ones(trajectories, bool),
        "group_ids": np.arange(trajectories, dtype=np.int32) // group_size,
        "similarity": (alike + alike.T) / 2,
        "violations": rng.random((trajectories, turns)) < 0.1,
        "turn_mask": np.ones((trajectories, turns), bool),
        "trajectory_ids": np.repeat(np.arange(trajectories, dtype=np.int32)[:, None], tokens, 1),
        "turn_ids": turn_ids,
        "loss_mask": turn_ids >= 0,
        "policy_logprobs": behavior + np.float32(0.15) * rng.standard_normal(shape, np.float32),
        "behavior_logprobs": behavior,
    }
    return Facts(**fields)


Ragged = list[list[np.ndarray]]
"""`[trajectory][turn]` → tokens that the policy wrote in the turn."""


class RaggedFacts(NamedTuple):
    """The same batch without padding."""

    facts: Facts
    policy_logprobs: Ragged
    behavior_logprobs: Ragged


def make_ragged(facts: Facts, trajectories: int) -> RaggedFacts:
    """The first trajectories, cut into turns."""

    def cut(values: jax.Array) -> Ragged:
        rows = []
        for row, turn_ids in zip(values[:trajectories], facts.turn_ids, strict=False):
            count = int(turn_ids.max()) + 1
            rows.append([np.ascontiguousarray(row[turn_ids == turn]) for turn in range(count)])
        return rows

    return RaggedFacts(facts, cut(facts.policy_logprobs), cut(facts.behavior_logprobs))


def loop_advantages(ragged: RaggedFacts) -> list[np.ndarray]:
    """Advantages of the turns of each trajectory, group by group."""
    facts = ragged.facts
    success, group_ids = np.asarray(facts.success), np.asarray(facts.group_ids)
    returns = []
    for row, written in enumerate(ragged.policy_logprobs):
        reward = np.where(facts.violations[row, : len(written)], -PENALTY, 0.0)
        peers = np.flatnonzero(success & (group_ids == group_ids[row]))
        if success[row]:
            reward[-1] += 1.0
        elif len(peers):
            reward[-1] += WEIGHT * np.mean(np.maximum(facts.similarity[row, peers], 0.0))
        for turn in reversed(range(len(reward) - 1)):
            reward[turn] += DISCOUNT * reward[turn + 1]
        returns.append(reward)
    result: list[np.ndarray] = []
    for group in dict.fromkeys(group_ids[: len(returns)].tolist()):
        members = [x for x, g in zip(returns, group_ids, strict=False) if g == group]
        pool = np.concatenate(members)
        mean, std = pool.mean(), pool.std()
        equal = std <= 1e-5 * np.abs(pool).max()
        result += [np.zeros_like(x) if equal else (x - mean) / (std + EPS) for x in members]
    return result


def turn_loop(ragged: RaggedFacts) -> tuple[float, Ragged]:
    """The chain as a loop over trajectories and turns; the tokens of a turn are one array."""
    per_turn = loop_advantages(ragged)
    count = sum(len(turn) for row in ragged.policy_logprobs for turn in row)
    total, gradient = 0.0, []
    for policy_row, behavior_row, row_advantages in zip(
        ragged.policy_logprobs, ragged.behavior_logprobs, per_turn, strict=True
    ):
        row = []
        for policy, behavior, advantage in zip(
            policy_row, behavior_row, row_advantages.astype(np.float32), strict=True
        ):
            ratio = np.exp(np.clip(policy - behavior, -20.0, 20.0))
            free = ratio * advantage
            clipped = np.clip(ratio, 1.0 - CLIP_LOW, 1.0 + CLIP_HIGH) * advantage
            total -= float(np.minimum(free, clipped).sum())
            row.append(np.where(free <= clipped, -free / count, 0.0))
        gradient.append(row)
    return total / count, gradient


def token_loop(ragged: RaggedFacts) -> tuple[float, Ragged]:
    """The chain as a loop over trajectories, turns and tokens: the equations for single numbers."""
    per_turn = loop_advantages(ragged)
    count = sum(len(turn) for row in ragged.policy_logprobs for turn in row)
    total, gradient = 0.0, []
    for policy_row, behavior_row, row_advantages in zip(
        ragged.policy_logprobs, ragged.behavior_logprobs, per_turn, strict=True
    ):
        row = []
        for policy, behavior, advantage in zip(
            policy_row, behavior_row, row_advantages.tolist(), strict=True
        ):
            turn = np.zeros_like(policy)
            pairs = zip(policy.tolist(), behavior.tolist(), strict=True)
            for index, (new, old) in enumerate(pairs):
                ratio = math.exp(min(max(new - old, -20.0), 20.0))
                free = ratio * advantage
                clipped = min(max(ratio, 1.0 - CLIP_LOW), 1.0 + CLIP_HIGH) * advantage
                total -= min(free, clipped)
                if free <= clipped:
                    turn[index] = -free / count
            row.append(turn)
        gradient.append(row)
    return total / count, gradient
