"""Figures of a set of trajectories, by hand."""

import json

import numpy as np
import pytest

from gtpo_jax.evaluation import evaluate_trajectories
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Trajectory, Turn, Verdict


def turn(tokens=4, violation=None, status=None):
    return Turn(
        tokens=np.zeros(tokens, np.int32),
        logprobs=np.zeros(tokens, np.float32),
        text="",
        violation=violation,
        results=() if status is None else (ToolResult(status=status),),
        observation=np.zeros(7, np.int32),
    )


def trajectory(turns, verdict, stop=StopReason.ANSWERED, family="a"):
    return Trajectory(
        problem=Problem(id="1", question="?", answer="!", family=family),
        group=0,
        sample=0,
        prompt=np.zeros(5, np.int32),
        turns=tuple(turns),
        stop_reason=stop,
        verdict=verdict,
    )


TRAJECTORIES = [
    trajectory([turn(status=ToolStatus.OK), turn(tokens=2)], Verdict.RIGHT),
    trajectory([turn(status=ToolStatus.ERROR), turn(status=ToolStatus.OK), turn()], Verdict.WRONG),
    trajectory([turn(tokens=6, violation="x")], Verdict.NO_ANSWER, StopReason.TURN_LIMIT, "b"),
    trajectory([turn(violation="x")], Verdict.RIGHT, family="b"),
    # Excluded: the outcome of none of these is known.
    trajectory([turn(status=ToolStatus.INFRA_ERROR)], Verdict.NO_ANSWER, StopReason.TOOL_FAILURE),
    trajectory([turn(99)], Verdict.NO_ANSWER, StopReason.CONTEXT_FULL, "c"),
    trajectory([turn(99)], Verdict.UNVERIFIABLE, family="c"),
]


def test_figures_are_those_of_the_known_outcomes():
    result = evaluate_trajectories(TRAJECTORIES)
    assert (result.trajectories, result.excluded) == (4, 3)
    assert result.success == 0.5
    assert result.success_error == pytest.approx((0.5 * 0.5 / 4) ** 0.5)
    assert result.violations == 0.5
    assert result.turns == (2 + 3 + 1 + 1) / 4
    assert result.tool_calls == 3 / 4
    assert result.tool_errors == pytest.approx(1 / 3)
    assert result.tokens == (6 + 12 + 6 + 4) / 4
    assert result.truncated == 1 / 4
    assert result.families == {"a": 0.5, "b": 0.5}


def test_stop_reasons_count_everything_and_name_every_reason():
    reasons = evaluate_trajectories(TRAJECTORIES).stop_reasons
    assert set(reasons) == {str(reason) for reason in StopReason}
    assert sum(reasons.values()) == len(TRAJECTORIES)
    assert (reasons["answered"], reasons["tool_failure"], reasons["max_turns"]) == (4, 1, 0)


@pytest.mark.parametrize("trajectories", [[], TRAJECTORIES[4:]], ids=["none", "excluded"])
def test_without_a_known_outcome_every_share_is_zero(trajectories):
    result = evaluate_trajectories(trajectories)
    assert (result.trajectories, result.excluded) == (0, len(trajectories))
    shares = (result.success, result.success_error, result.violations, result.turns)
    shares += (result.tool_calls, result.tool_errors, result.tokens, result.truncated)
    assert set(shares) == {0.0} and result.families == {}


def test_order_changes_nothing():
    assert evaluate_trajectories(TRAJECTORIES[::-1]) == evaluate_trajectories(TRAJECTORIES)


def test_record_is_json():
    record = evaluate_trajectories(TRAJECTORIES).record()
    assert json.loads(json.dumps(record)) == record
    assert record["success"] == 0.5
