"""Rollouts: rows that decode, tools in flight, and the host loop that serves both."""

from gtpo_jax.rollout.dynamic import (
    CollectedGroups,
    RunFn,
    collect_groups,
)
from gtpo_jax.rollout.engine import RolloutEngine
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.rounds import Refresh, Rounds
from gtpo_jax.rollout.starts import render_prompt
from gtpo_jax.types import Request

__all__ = [
    "CollectedGroups",
    "Refresh",
    "Request",
    "RolloutEngine",
    "RolloutLimits",
    "RolloutProgress",
    "RolloutStats",
    "Rounds",
    "RunFn",
    "collect_groups",
    "render_prompt",
]
