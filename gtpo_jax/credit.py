"""Credit assignment for a batch of episodes: what happened → turn rewards → turn advantages.

    credit.assign(episodes, credit.gtpo_turn_rewards, advantages.gtpo_advantages)

Both functions are arguments: another algorithm is another pair. A reward function may name the
parts that its rewards are the sum of; then records and viewers can show them one by one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax import returns, rewards
from gtpo_jax.maths import similarity
from gtpo_jax.types import EpisodeBatch

Parts = Mapping[str, jax.Array]
"""Name → the part `[M, K]` that it has in the rewards, which are the sum of all."""

RewardFn = Callable[[EpisodeBatch], jax.Array | Parts]
"""Episodes → turn rewards `[M, K]`, or their parts."""

ReturnFn = Callable[[jax.Array, jax.Array], jax.Array]
"""`(turn_rewards, turn_mask) → turn_returns [M, K]`; see `returns`."""

AdvantageFn = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""`(turn_rewards, turn_mask, group_ids, included) → turn_advantages [M, K]`; see `advantages`."""


def undiscounted_returns(turn_rewards: jax.Array, turn_mask: jax.Array) -> jax.Array:
    """The sum of what a turn and those after it earn, `[M, K]`."""
    return returns.discounted_returns(turn_rewards, turn_mask, discount=1.0)


class TurnCredit(NamedTuple):
    """Credit of every turn."""

    rewards: jax.Array  # [M, K] float32
    advantages: jax.Array  # [M, K] float32
    returns: jax.Array  # [M, K] float32
    parts: dict[str, jax.Array]  # [M, K] each, their sum the rewards; none where none are named


def assign(
    episodes: EpisodeBatch,
    turn_rewards: RewardFn,
    turn_advantages: AdvantageFn,
    turn_returns: ReturnFn = undiscounted_returns,
) -> TurnCredit:
    """Rewards, returns and advantages of every turn of the episodes. Pure and jit-able.

    Advantages are made of rewards; `turn_returns` tells what their function makes of them on the
    way, and changes nothing.
    """
    values = turn_rewards(episodes)
    parts = dict(values) if isinstance(values, Mapping) else {}
    total = functools.reduce(operator.add, parts.values()) if parts else jnp.asarray(values)
    mask = episodes.turn_mask
    return TurnCredit(
        rewards=total,
        advantages=turn_advantages(total, mask, episodes.group_ids, episodes.included),
        returns=turn_returns(total, mask),
        parts=parts,
    )


EmbedFn = Callable[[EpisodeBatch], jax.Array]
"""Episodes → one embedding `[M, D]` for the code of each; not necessarily of unit length."""


def embed_ngrams(episodes: EpisodeBatch) -> jax.Array:
    """Hashed byte n-grams of the code: deterministic, and without weights."""
    return similarity.hashed_ngrams(episodes.code, episodes.code_lengths)


def gtpo_turn_rewards(
    episodes: EpisodeBatch,
    *,
    shaping: float = 0.5,
    format_penalty: float = 0.1,
    embed: EmbedFn = embed_ngrams,
) -> jax.Array:
    """Turn rewards of GTPO: the shaped outcome on the last turn, the format penalty on every turn.

    `embed` says by what the code of two trajectories is compared. A sentence encoder or a hosted
    embedding runs beforehand; `lambda _: embeddings` then hands its result in.
    """
    return rewards.gtpo_rewards(
        _shaped_outcomes(episodes, shaping, embed),
        episodes.violations,
        episodes.turn_mask,
        format_penalty=format_penalty,
    )


def gtpo_reward_parts(
    episodes: EpisodeBatch,
    *,
    shaping: float = 0.5,
    format_penalty: float = 0.1,
    embed: EmbedFn = embed_ngrams,
) -> dict[str, jax.Array]:
    """`gtpo_turn_rewards` in parts: the `outcome` of successes, the `partial` credit of failures
    that resemble one, and what the `format` costs.
    """
    outcomes = _shaped_outcomes(episodes, shaping, embed)
    mask, success = episodes.turn_mask, episodes.success
    return {
        "outcome": rewards.outcome_rewards(jnp.where(success, outcomes, 0.0), mask),
        "partial": rewards.outcome_rewards(jnp.where(success, 0.0, outcomes), mask),
        "format": rewards.format_rewards(episodes.violations, mask, penalty=format_penalty),
    }


def _shaped_outcomes(episodes: EpisodeBatch, shaping: float, embed: EmbedFn) -> jax.Array:
    return rewards.shaped_outcomes(
        episodes.success,
        episodes.included,
        episodes.group_ids,
        similarity.cosine_similarity(embed(episodes)),
        weight=shaping,
    )


def grpo_turn_rewards(episodes: EpisodeBatch) -> jax.Array:
    """Turn rewards of the paper's GRPO baseline: a well-formed success earns 1, on its
    last turn.
    """
    return rewards.grpo_rewards(episodes.success, episodes.violations, episodes.turn_mask)


def grpo_reward_parts(episodes: EpisodeBatch) -> dict[str, jax.Array]:
    """`grpo_turn_rewards` in parts: the `outcome`, and what the `format` takes from a success that
    is badly formed.
    """
    outcomes = jnp.asarray(episodes.success, jnp.float32)
    outcome = rewards.outcome_rewards(outcomes, episodes.turn_mask)
    return {"outcome": outcome, "format": grpo_turn_rewards(episodes) - outcome}
