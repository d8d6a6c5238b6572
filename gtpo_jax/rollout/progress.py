"""Progress of a rollout, and its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutProgress:
    """How far a rollout has come."""

    finished: int
    total: int
    sampled_tokens: int
    active_rows: int
    tools_in_flight: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """The cost of a rollout."""

    sampled_tokens: int
    row_steps: int  # decode steps times rows, idle rows included
    prefilled_tokens: int  # positions of all prefill calls, padding included
    extended_tokens: int  # positions of all extend calls, padding included
    fed_tokens: int  # tokens that these calls computed, without padding and without copies
    tool_calls: int
    tool_seconds: float  # wall seconds inside tools, summed over calls


@dataclasses.dataclass
class RowCosts:
    """The device work of a rollout so far; the fields are those of `RolloutStats`."""

    sampled_tokens: int = 0
    row_steps: int = 0
    prefilled_tokens: int = 0
    extended_tokens: int = 0
    fed_tokens: int = 0


def total_stats(costs: Sequence[RolloutStats]) -> RolloutStats:
    """The cost of several rollouts together."""
    return RolloutStats(
        **{
            field.name: sum(getattr(cost, field.name) for cost in costs)
            for field in dataclasses.fields(RolloutStats)
        }
    )
