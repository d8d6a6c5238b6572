"""The benchmark of the Python tool runs, and its figures measure what their names say."""

import json
import sys
import time

import pytest

from benchmarks import executor as benchmark
from benchmarks import executor_stress
from gtpo_jax.tools import PythonExecutor, checkup

pytestmark = pytest.mark.slow

SMALL = {
    "rounds": 1,
    "calls": 4,
    "rate_calls": 16,
    "session_calls": 8,
    "solve_calls": 1,
    "fresh_calls": 1,
    "beside": 8,
    "stress": 0,
}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
BARS = {
    "call, median": "<= 5",
    "call, 95th percentile": "<= 12",
    "fresh `python -I -S -c` / ours": ">= 2",
    "fresh Python with numpy and sympy / ours": ">= 50",
    "calls, 8 submitters": ">= 200",
    "further call in a session, median": "<= 0.6",
    "further calls in 8 sessions": ">= 3000",
    "99th percentile beside a hung call / without it": "<= 1.5",
}
STRESS_BARS = {
    "long run, wrong or lost results": "<= 0",
    "long run, leftover processes": "<= 0",
    "long run, leaked descriptors": "<= 0",
    "long run, growth of resident memory": "<= 0.05",
}


@pytest.fixture(scope="module")
def tool():
    with PythonExecutor(max_running=2, preload=()) as tool:
        yield tool


def test_benchmark_writes_every_figure_with_its_bar(tmp_path):
    path = tmp_path / "figures.json"
    benchmark.run([*OPTIONS, f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    for name, bar in {**BARS, **STRESS_BARS}.items():
        assert figures[name]["bar"] == bar
    assert all(figures[name]["value"] > 0 for name in BARS)
    assert all(figures[name]["value"] is None for name in STRESS_BARS)
    median, percentile = (figures[f"call, {name}"] for name in ("median", "95th percentile"))
    assert 0.1 < median["value"] <= percentile["value"]
    # Other pairs are measured one after the other, and the load of the machine may change between.
    assert (
        figures["fresh Python with numpy and sympy / ours"]["value"]
        > figures["fresh `python -I -S -c` / ours"]["value"]
    )


def test_long_run_is_summed_up_by_its_worst(monkeypatch):
    outcome = executor_stress.Outcome(
        wrong=["call 7", "call 9"],
        leftover=1,
        leaked={"trainer": 1, "zygote": 2},
        growth={"trainer": -0.5, "supervisor": 0.06, "zygote": 0.01},
    )
    monkeypatch.setattr(executor_stress, "stress", lambda calls: outcome)
    figures = benchmark.stress_figures(5)
    assert [figures[name].value for name in STRESS_BARS] == [2, 1, 3, 0.06]
    assert not any(figures[name].holds for name in STRESS_BARS)


def test_calls_submitted_at_once_are_timed_from_their_submission(tool):
    begin = time.perf_counter()
    seconds = benchmark.all_at_once(tool, 24)
    whole = time.perf_counter() - begin
    assert len(seconds) == 24 and max(seconds) <= whole
    # Two places for 24 calls: the last ones wait for most of the time.
    assert max(seconds) > 0.5 * whole and min(seconds) < 0.5 * whole


def test_call_beside_others_hangs_until_they_are_done_and_no_longer(tool):
    with benchmark.endless_call(tool, "while True: pass"):
        assert len(benchmark.all_at_once(tool, 2)) == 2
    assert len(benchmark.all_at_once(tool, 4)) == 4
    with (
        pytest.raises(RuntimeError, match="was to hang"),
        benchmark.endless_call(tool, checkup.TRIVIAL),
    ):
        pass


def test_turns_are_taken_and_the_first_round_is_left_out():
    ran = []

    def runner(name):
        return lambda: ran.append(name) or [float(len(ran))]

    rounds = benchmark.take_turns({"a": runner("a"), "b": runner("b")}, 2)
    assert ran == ["a", "b"] * 3
    assert rounds == {"a": [[3.0], [5.0]], "b": [[4.0], [6.0]]}


def test_fresh_interpreter_that_prints_something_else_raises():
    with pytest.raises(RuntimeError, match="printed"):
        benchmark.fresh([sys.executable, "-I", "-S", "-c", "print(1)"], 1)
    assert benchmark.fresh([sys.executable, "-I", "-S", "-c", checkup.TRIVIAL], 1)[0] > 1e-3
