"""The benchmark of rollouts runs, and the turns and schemes that it times are as described."""

import json
import time

import jax
import pytest

from benchmarks import rollout as benchmark
from benchmarks import rollout_fixture as fixture
from gtpo_jax.testing import FakeTool
from gtpo_jax.types import StopReason
from models import decoder

pytestmark = pytest.mark.slow

SMALL = {
    "rounds": 1,
    "width": 16,
    "layers": 1,
    "rows": 4,
    "new_tokens": 8,
    "longest": 16,
    "batches": 2,
    "latency": 0.02,
    "latency_rounds": 1,
}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
BARS = {
    "slow tools / none, ours": "<= 1.2",
    "row-steps of finished or waiting rows": "<= 0.15",
    "prefill of a group of 16 / 16 separate prefills": "<= 0.0833333",
}
PEER_BARS = {
    "decode, ours / tunix, by CPU time": ">= 1.25",
    "decode, ours / transformers, by CPU time": ">= 2",
    "episodes, ours / tunix agentic, by wall time": ">= 20",
}
NO_BARS = (
    "decode, ours, by CPU time",
    "decode, ours, by wall time",
    "slow tools / none, turn-synchronous",
    "turn-synchronous / ours, slow tools",
    "turn-synchronous / ours, no slow tools",
    "row-steps of finished or waiting rows, a quarter of the trajectories",
)
SLOTS = 3


@pytest.fixture(scope="module")
def engine_and_params():
    config = fixture.model_config(16, 1)
    engine = fixture.make_engine(
        fixture.countdown(decoder.forward_fn(config), 2, 16),
        fixture.CallingDialogue(fixture.BYTES),
        FakeTool(lambda code: fixture.OUTPUT),
        turns=3,
        longest=16,
        slots=SLOTS,
    )
    return engine, jax.device_put(decoder.init_params(config, jax.random.key(0)))


@pytest.mark.long
def test_benchmark_without_peers_writes_every_figure_and_leaves_peers_unmeasured(tmp_path):
    path = tmp_path / "figures.json"
    benchmark.run([*OPTIONS, f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    for name, bar in {**BARS, **PEER_BARS}.items():
        assert figures[name]["bar"] == bar
    for name in (*BARS, *NO_BARS):
        assert figures[name]["value"] > 0
    others = set(figures) - {*BARS, *NO_BARS}
    assert {*PEER_BARS} < others
    assert all("tunix" in name or "transformers" in name for name in others)
    assert all(figures[name]["value"] is None for name in others)
    assert figures["prefill of a group of 16 / 16 separate prefills"]["value"] == 1 / 16


def test_interpreter_that_is_not_there_is_named(tmp_path):
    missing = tmp_path / "python"
    with pytest.raises(ValueError, match=r"--peer-python .* does not exist"):
        benchmark.run([*OPTIONS, "--peer-python", str(missing)])


@pytest.mark.long
def test_countdown_takes_turns_of_all_lengths_and_no_others(engine_and_params):
    engine, params = engine_and_params
    requests = fixture.make_requests(20, 2)
    trajectories, stats = engine.run(params, requests, seed=0, step=0)
    lengths = [len(turn.tokens) for t in trajectories for turn in t.turns]
    assert len(lengths) == 120 and sum(lengths) == stats.sampled_tokens
    assert min(lengths) == 2 and max(lengths) == 16 and len(set(lengths)) == 15
    for trajectory in trajectories:
        assert trajectory.stop_reason is StopReason.MAX_TURNS
        assert len(trajectory.prompt) == fixture.PROMPT
        for turn in trajectory.turns:
            assert turn.tokens[:-1].tolist() == [*range(len(turn.tokens) - 2, -1, -1)]
            assert len(turn.observation) in (0, fixture.OBSERVATION)


def test_turn_synchronous_scheme_samples_the_same_tokens_and_makes_the_same_calls(
    engine_and_params,
):
    engine, params = engine_and_params
    requests = fixture.make_requests(SLOTS + 2, 1)  # the second batch is not full
    engine.tool = FakeTool(lambda code: fixture.OUTPUT)
    calls = fixture.turn_synchronous(engine, params, requests, 7), len(engine.tool.calls)
    assert calls[1] == 2 * len(requests)
    _, stats = engine.run(params, requests, seed=7, step=0)
    assert calls == (stats.sampled_tokens, stats.tool_calls)


def test_slow_tool_keeps_every_fourth_call():
    with fixture.slow_tool(0.2, threads=8) as tool:
        begin = time.perf_counter()
        waiting = [tool.submit("0") for _ in range(8)]
        time.sleep(0.1)
        assert sum(not call.done() for call in waiting) == 2
        assert all(call.result().stdout == fixture.OUTPUT for call in waiting)
        assert time.perf_counter() - begin >= 0.2
