"""Rewards of turns: named parts, summed. One idea per file."""

from gtpo_jax.parts.rewards.budget_scores import BUDGET_SCORES, budget_scores
from gtpo_jax.parts.rewards.format import forfeit, format_penalty, format_rewards
from gtpo_jax.parts.rewards.information import (
    information_gain,
    information_gains,
)
from gtpo_jax.parts.rewards.outcome import outcome, outcome_rewards
from gtpo_jax.parts.rewards.overlong import overlong, overlong_penalties
from gtpo_jax.parts.rewards.own import TrajectoryReward, own
from gtpo_jax.parts.rewards.progress import (
    PROGRESS,
    StateScores,
    progress,
    progress_rewards,
    scores_by,
)
from gtpo_jax.parts.rewards.resemblance import (
    EMBEDDINGS,
    NGRAMS,
    POLICY_STATES,
    Embedding,
    EmbedTexts,
    embedding_of,
    resemblance,
    shaped_outcomes,
)
from gtpo_jax.parts.rewards.reward import Reward, Rewards, evaluate
from gtpo_jax.parts.rewards.scaled_outcome import length_scaled_outcomes, scaled_outcome
from gtpo_jax.parts.rewards.scored import TURN_SCORES, turn_scores

__all__ = [
    "BUDGET_SCORES",
    "EMBEDDINGS",
    "NGRAMS",
    "POLICY_STATES",
    "PROGRESS",
    "TURN_SCORES",
    "EmbedTexts",
    "Embedding",
    "Reward",
    "Rewards",
    "StateScores",
    "TrajectoryReward",
    "budget_scores",
    "embedding_of",
    "evaluate",
    "forfeit",
    "format_penalty",
    "format_rewards",
    "information_gain",
    "information_gains",
    "length_scaled_outcomes",
    "outcome",
    "outcome_rewards",
    "overlong",
    "overlong_penalties",
    "own",
    "progress",
    "progress_rewards",
    "resemblance",
    "scaled_outcome",
    "scores_by",
    "shaped_outcomes",
    "turn_scores",
]
