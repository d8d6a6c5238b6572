"""Rewards of turns: named parts, summed. One idea per file."""

from gtpo_jax.parts.rewards.agents import AGENTS, PARENTS, agent_outcome, agent_outcomes
from gtpo_jax.parts.rewards.agreement import (
    FAMILIES,
    agreement,
    agreement_scores,
    bleu,
    count_ngrams,
)
from gtpo_jax.parts.rewards.budget_scores import BUDGET_SCORES, budget_scores, shown_answers
from gtpo_jax.parts.rewards.consistency import (
    consistency,
    consistency_bonuses,
)
from gtpo_jax.parts.rewards.diversity import DIVERSITY, diversity, lexical_scores
from gtpo_jax.parts.rewards.entities import (
    CUT_OFF,
    ENTITY_COUNT,
    ENTITY_HITS,
    entities,
    entity_outcomes,
    prose,
)
from gtpo_jax.parts.rewards.format import forfeit, format_penalty, format_rewards, well_formed
from gtpo_jax.parts.rewards.information import information_gain, information_gains
from gtpo_jax.parts.rewards.lengths import (
    budget_rewards,
    concise,
    cosine,
    cosine_rewards,
    token_budget,
    within_budget,
)
from gtpo_jax.parts.rewards.outcome import outcome, outcome_rewards
from gtpo_jax.parts.rewards.overlong import overlong, overlong_penalties
from gtpo_jax.parts.rewards.own import TrajectoryReward, own
from gtpo_jax.parts.rewards.planned import PLANS, plan_quality, planned
from gtpo_jax.parts.rewards.preferences import PREFERENCES, PreferTurns, preferences
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
from gtpo_jax.parts.rewards.scores import ScoreTrajectory, scores
from gtpo_jax.parts.rewards.whole import weighted, whole

__all__ = [
    "AGENTS",
    "BUDGET_SCORES",
    "CUT_OFF",
    "DIVERSITY",
    "EMBEDDINGS",
    "ENTITY_COUNT",
    "ENTITY_HITS",
    "FAMILIES",
    "NGRAMS",
    "PARENTS",
    "PLANS",
    "POLICY_STATES",
    "PREFERENCES",
    "PROGRESS",
    "TURN_SCORES",
    "EmbedTexts",
    "Embedding",
    "PreferTurns",
    "Reward",
    "Rewards",
    "ScoreTrajectory",
    "StateScores",
    "TrajectoryReward",
    "agent_outcome",
    "agent_outcomes",
    "agreement",
    "agreement_scores",
    "bleu",
    "budget_rewards",
    "budget_scores",
    "concise",
    "consistency",
    "consistency_bonuses",
    "cosine",
    "cosine_rewards",
    "count_ngrams",
    "diversity",
    "embedding_of",
    "entities",
    "entity_outcomes",
    "evaluate",
    "forfeit",
    "format_penalty",
    "format_rewards",
    "information_gain",
    "information_gains",
    "length_scaled_outcomes",
    "lexical_scores",
    "outcome",
    "outcome_rewards",
    "overlong",
    "overlong_penalties",
    "own",
    "plan_quality",
    "planned",
    "preferences",
    "progress",
    "progress_rewards",
    "prose",
    "resemblance",
    "scaled_outcome",
    "scores",
    "scores_by",
    "shaped_outcomes",
    "shown_answers",
    "token_budget",
    "turn_scores",
    "weighted",
    "well_formed",
    "whole",
    "within_budget",
]
