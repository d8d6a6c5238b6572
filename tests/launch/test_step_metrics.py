"""Metrics of a training step, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.types import (
    EpisodeBatch,
    ToolStatus,
    Verdict,
)
from launch.run import step_metrics
from tests.launch.test_train import with_results

pytestmark = pytest.mark.slow


def test_figures_of_credit_by_hand():
    mask = np.array([[True, True], [True, False]])
    given = methods.TurnCredit(
        rewards=np.array([[-0.1, 1.0], [0.0, 0.0]], np.float32),
        advantages=np.array([[1.0, 2.0], [-3.0, 9.0]], np.float32),
        parts={"mine": np.array([[0.5, 0.5], [0.0, 0.0]], np.float32)},
        links={"return": np.array([[0.8, 1.0], [0.0, 9.0]], np.float32)},
    )
    episodes = EpisodeBatch(
        group_ids=np.zeros(2, np.int32),
        included=np.array([True, True]),
        success=np.array([True, True]),
        turn_mask=mask,
        violations=np.zeros_like(mask),
    )
    assert step_metrics.credit(episodes, given) == pytest.approx(
        {
            "credit/reward": 0.45,
            "credit/mine": 0.5,
            "credit/return": 0.4,
            "credit/advantage_size": 2.0,
            "credit/advantage_turn_0": 2.0,
            "credit/advantage_turn_1": 2.0,
            "credit/first_turn_of_right": 1.0,  # the second trajectory has one turn
            "credit/pushed_down": 0.0,
        }
    )


def test_figures_of_calls_are_shares_of_calls_and_seconds_of_one():
    ok, error = (ToolStatus.OK, 0.1), (ToolStatus.ERROR, 0.3)
    found = step_metrics.tool(
        [with_results(ok, ok, error), with_results((ToolStatus.TIMEOUT, 2.0))]
    )
    assert (found["tool/ok"], found["tool/error"], found["tool/timeout"]) == (0.5, 0.25, 0.25)
    assert found["tool/latency_p50"] == pytest.approx(0.2)
    assert 0.3 < found["tool/latency_p95"] < found["tool/latency_max"] == 2.0
    none = step_metrics.tool([with_results()])
    assert none.keys() == found.keys() and set(none.values()) == {0.0}


def test_figures_of_lengths_and_verdicts():
    one = with_results()
    unknown = dataclasses.replace(one, verdict=Verdict.UNVERIFIABLE, prompt=np.zeros(7, np.int32))
    found = step_metrics.rollout([one, one, one, unknown])
    assert (found["length/prompt_mean"], found["length/prompt_max"]) == (4.0, 7.0)
    assert (found["length/response_mean"], found["length/observation_max"]) == (12.0, 0.0)
    assert (found["length/total_mean"], found["length/total_max"]) == (16.0, 19.0)
    assert (found["rollout/wrong"], found["rollout/unverifiable"]) == (0.75, 0.25)
    assert (found["rollout/no_answer"], found["rollout/excluded"]) == (0.0, 1)


def test_memory_of_this_process_grows_with_what_it_holds():
    before = step_metrics.memory()["memory/host_bytes"]
    held = np.ones(64 << 20, np.uint8)
    assert step_metrics.memory()["memory/host_bytes"] - before > 0.9 * held.nbytes
