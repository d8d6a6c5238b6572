"""Credit assignment for a batch of episodes: what happened → turn rewards → turn advantages.

    credit.assign(episodes, credit.gtpo_turn_rewards, advantages.gtpo_advantages)

Both functions are arguments: another algorithm is another pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from gtpo_jax import rewards, similarity
from gtpo_jax.types import EpisodeBatch

RewardFn = Callable[[EpisodeBatch], jax.Array]
"""Episodes → turn rewards `[M, K]`."""

AdvantageFn = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""`(turn_rewards, turn_mask, group_ids, included) → turn_advantages [M, K]`; see `advantages`."""


class TurnCredit(NamedTuple):
    """Credit of every turn."""

    rewards: jax.Array  # [M, K] float32
    advantages: jax.Array  # [M, K] float32


def assign(
    episodes: EpisodeBatch, turn_rewards: RewardFn, turn_advantages: AdvantageFn
) -> TurnCredit:
    """Rewards and advantages of every turn of the episodes. Pure and jit-able."""
    values = turn_rewards(episodes)
    return TurnCredit(
        values,
        turn_advantages(values, episodes.turn_mask, episodes.group_ids, episodes.included),
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
    embeddings = embed(episodes)
    outcomes = rewards.shaped_outcomes(
        episodes.success,
        episodes.included,
        episodes.group_ids,
        similarity.cosine_similarity(embeddings),
        weight=shaping,
    )
    return rewards.gtpo_rewards(
        outcomes, episodes.violations, episodes.turn_mask, format_penalty=format_penalty
    )


def grpo_turn_rewards(episodes: EpisodeBatch) -> jax.Array:
    """Turn rewards of the paper's GRPO baseline: a well-formed success earns 1, on its
    last turn.
    """
    return rewards.grpo_rewards(episodes.success, episodes.violations, episodes.turn_mask)
