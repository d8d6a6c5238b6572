"""What a rollout tells of itself: where it stands, and in the end what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutProgress:
    """Where a rollout stands."""

    finished: int
    total: int
    sampled_tokens: int
    active_rows: int
    tools_in_flight: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """What a rollout cost."""

    sampled_tokens: int
    row_steps: int  # decode steps times slots, idle ones included
    prefilled_tokens: int  # positions of all prefill calls, padding included
    extended_tokens: int  # positions of all extend calls, padding included
    tool_calls: int
    tool_seconds: float  # wall seconds inside tools, summed over calls


def total_stats(costs: Sequence[RolloutStats]) -> RolloutStats:
    """What several rollouts cost together."""
    return RolloutStats(
        **{
            field.name: sum(getattr(cost, field.name) for cost in costs)
            for field in dataclasses.fields(RolloutStats)
        }
    )
