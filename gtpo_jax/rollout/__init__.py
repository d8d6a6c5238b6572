"""The host loop of a rollout: slots of the decode programs, tools in flight, trajectories out."""

from gtpo_jax.rollout.dynamic import (
    CollectedGroups,
    RunFn,
    SignalFn,
    collect_groups,
    unequal_outcomes,
)
from gtpo_jax.rollout.engine import (
    Refresh,
    RolloutEngine,
    render_prompt,
)
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.slots import Request

__all__ = [
    "CollectedGroups",
    "Refresh",
    "Request",
    "RolloutEngine",
    "RolloutLimits",
    "RolloutProgress",
    "RolloutStats",
    "RunFn",
    "SignalFn",
    "collect_groups",
    "render_prompt",
    "unequal_outcomes",
]
