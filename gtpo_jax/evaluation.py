"""What a set of trajectories says about a policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gtpo_jax.types import StopReason, ToolStatus, Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Shares and means over trajectories whose outcome is known; `excluded` counts the others."""

    trajectories: int
    excluded: int
    success: float  # share of right answers
    success_error: float  # standard error of `success`
    violations: float  # share of trajectories with at least one badly formed turn
    turns: float  # mean number of turns
    tool_calls: float  # mean number of calls
    tool_errors: float  # share of calls that did not end with status ok
    tokens: float  # mean number of sampled tokens
    truncated: float  # share that a limit cut
    families: dict[str, float]  # success by problem family
    stop_reasons: dict[str, int]

    def record(self) -> dict:
        """As a JSON object."""
        return dataclasses.asdict(self)


def evaluate_trajectories(trajectories: Sequence[Trajectory]) -> Evaluation:
    """Summarizes trajectories; without any known outcome every share is 0."""
    known = [t for t in trajectories if t.included]
    count = max(len(known), 1)
    calls = [result for t in known for turn in t.turns for result in turn.results]
    success = sum(t.success for t in known) / count
    families: dict[str, list[bool]] = {}
    for trajectory in known:
        families.setdefault(trajectory.problem.family, []).append(trajectory.success)
    return Evaluation(
        trajectories=len(known),
        excluded=len(trajectories) - len(known),
        success=success,
        success_error=math.sqrt(success * (1 - success) / count),
        violations=sum(_violated(t) for t in known) / count,
        turns=sum(len(t.turns) for t in known) / count,
        tool_calls=len(calls) / count,
        tool_errors=sum(r.status is not ToolStatus.OK for r in calls) / max(len(calls), 1),
        tokens=sum(len(turn.tokens) for t in known for turn in t.turns) / count,
        truncated=sum(t.stop_reason.truncated for t in known) / count,
        families={name: sum(won) / len(won) for name, won in sorted(families.items())},
        stop_reasons={
            str(reason): sum(t.stop_reason is reason for t in trajectories) for reason in StopReason
        },
    )


def _violated(trajectory: Trajectory) -> bool:
    return any(turn.violation is not None for turn in trajectory.turns)
