"""Many calls, one in ten hostile: every result is right and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import executor_stress
from gtpo_jax.tools import IsolationError, PythonExecutor
from tests.tools.calls import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        PythonExecutor(max_running=2, preload=()).close()
    except IsolationError as error:
        pytest.skip(f"this host does not give {', '.join(error.missing)}")


def check(outcome, calls):
    assert outcome.wrong == []
    assert outcome.calls == sum(outcome.statuses.values()) == calls
    assert calls / 20 < outcome.hostile < calls / 5
    assert outcome.leftover == 0
    assert set(outcome.leaked) >= {"trainer", "supervisor", "zygote"}
    assert set(outcome.leaked.values()) == {0}


def stress(calls, warm):
    """In a process of its own, as this one has other children, and memory that comes and goes."""
    command = [sys.executable, "-m", "benchmarks.executor_stress", str(calls), str(warm)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return executor_stress.Outcome(**json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.long
def test_thousands_of_calls_leave_memory_as_it_was():
    outcome = stress(2000, 600)
    check(outcome, 2000)
    assert all(growth <= 0.05 for growth in outcome.growth.values()), outcome.growth


def test_hundreds_of_calls_give_their_results_and_leave_nothing():
    check(stress(300, 100), 300)
