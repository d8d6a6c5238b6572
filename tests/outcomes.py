"""Outcomes of samples that fail in known ways."""

from __future__ import annotations

from gtpo_jax.results.evaluation import RIGHT, Outcome
from gtpo_jax.types import StopReason


def outcome(problem="a", sample=0, *, way=RIGHT, included=True):
    """The outcome of a sample that fails in a way, with consistent other fields."""
    stop = StopReason.TURN_LIMIT if way == "cut off" else StopReason.ANSWERED
    return Outcome(
        problem=problem,
        family="",
        sample=sample,
        included=included,
        success=way == RIGHT,
        vote=RIGHT if way == RIGHT else "nothing",
        answer=None,
        verdict="right" if way == RIGHT else "wrong",
        stop_reason=stop,
        truncated=stop.truncated,
        turns=2,
        violations=int(way in ("cut off", "no call", "badly formed")),
        tool_calls=int(way != "no call"),
        tool_errors=int(way in ("badly formed", "failed call")),
        tokens=9,
    )


def samples(problem, *ways):
    return [outcome(problem, sample, way=way) for sample, way in enumerate(ways)]
