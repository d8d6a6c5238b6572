"""The benchmark of updates runs, its batches are as described, and its arithmetic is right."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import update as benchmark
from benchmarks import update_fixture as fixture
from gtpo_jax.learner import packing
from models.presets import QWEN2_5_1_5B

pytestmark = pytest.mark.slow

SMALL = {
    "rounds": 1,
    "width": 16,
    "layers": 1,
    "vocab_size": 32,
    "trajectories": 6,
    "context": 64,
}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
BARS = {
    "update, ours / trl, by wall time": ">= 1.5",
    "update, ours / tunix, by wall time": ">= 1.3",
    "difference of the first losses": "<= 0.0001",
    "difference of the first gradient norms": "<= 0.001",
    "MFU, qwen2.5-1.5b": ">= 0.45",
}
FAKE_PEER = """#!{python}
import sys
print('{{"peers": ["trl"], "version": "0"}}', flush=True)
for line in sys.stdin:
    assert line == "trl\\n"
    print('{{"wall": 3000, "cpu": 100, "loss": 1e6, "norm": 1e6}}', flush=True)
"""


def batch_of(*, equal: bool, count: int = 12) -> fixture.Batch:
    return fixture.make_batch(count=count, context=256, vocab_size=50, equal=equal)


def figures_of(options: list[str], path) -> dict[str, dict]:
    benchmark.run([*OPTIONS, *options, f"--json={path}"])
    return json.loads(path.read_text())["figures"]


@pytest.mark.long
def test_benchmark_without_peers_writes_every_figure_and_leaves_peers_unmeasured(tmp_path):
    figures = figures_of([], tmp_path / "figures.json")
    assert {name: f["bar"] for name, f in figures.items() if f["bar"]} == BARS
    ours = [name for name in figures if "ours," in name or name.startswith("padding")]
    assert len(ours) == 2 * 4
    for name, figure in figures.items():
        assert (figure["value"] is not None) == (name in ours), name
    assert all(figures[name]["value"] > 0 for name in ours if name.startswith("update"))
    assert figures["padding, each to the longest, equal lengths"]["value"] == 0
    assert figures["padding, ours"]["value"] < figures["padding, each to the longest"]["value"]


@pytest.mark.long
def test_ratios_are_of_times_and_gaps_are_seen(tmp_path):
    peer = tmp_path / "python"
    peer.write_text(FAKE_PEER.format(python=sys.executable))
    peer.chmod(0o755)
    figures = figures_of([f"--peer-python={peer}"], tmp_path / "figures.json")
    for case in ("", ", equal lengths"):
        by_wall, by_cpu = (f"by {kind} time{case}" for kind in ("wall", "CPU"))
        tokens = 3000 * figures[f"update, ours, {by_wall}"]["value"]
        tokens /= figures[f"update, ours / trl, {by_wall}"]["value"]
        assert tokens == pytest.approx(
            100
            * figures[f"update, ours, {by_cpu}"]["value"]
            / figures[f"update, ours / trl, {by_cpu}"]["value"]
        )
        batch = fixture.make_batch(count=6, context=64, vocab_size=32, equal=bool(case))
        assert tokens == pytest.approx(batch.tokens)
    assert figures["update, ours / trl, by wall time"]["holds"]
    assert figures["update, ours / tunix, by wall time"]["value"] is None
    assert figures["difference of the first losses"]["value"] == pytest.approx(1e6, rel=1e-3)
    assert figures["difference of the first losses"]["holds"] is False
    assert figures["difference of the first gradient norms"]["holds"] is False


def test_interpreter_that_is_not_there_or_has_no_peer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--peer-python .* does not exist"):
        benchmark.run([*OPTIONS, f"--peer-python={tmp_path / 'python'}"])
    with pytest.raises(ValueError, match=r"needs TRL, or Tunix"):
        benchmark.run([*OPTIONS, "--peer-python=/bin/true"])


@pytest.mark.parametrize("equal", [False, True])
def test_peers_are_given_the_trajectories_that_we_pack(equal):
    batch = batch_of(equal=equal)
    padded = fixture.padded(batch)
    packed = packing.pack(
        batch.trajectories, batch.advantages, micro_batches=12, rows=1, row_length=256
    )

    def sorted_rows(*columns: np.ndarray) -> np.ndarray:
        rows = np.stack(columns)
        return rows[:, np.lexsort(rows)]

    mask = np.asarray(packed.loss_mask)
    fields = (packed.tokens, packed.token_advantages, packed.behavior_logprobs)
    names = ("completion_ids", "advantages", "logprobs")
    np.testing.assert_array_equal(
        sorted_rows(*(np.asarray(field)[mask] for field in fields)),
        sorted_rows(*(padded[name][padded["trained"]] for name in names)),
    )
    assert padded["trained"].sum() == batch.trained
    rows = np.concatenate([padded["prompt_ids"], padded["completion_ids"]], axis=1)
    assert rows.shape == (12, 256)
    assert np.count_nonzero(rows) == np.count_nonzero(packed.segment_ids) == batch.tokens
    for row, trajectory in zip(rows, batch.trajectories, strict=True):
        pieces = [part for turn in trajectory.turns for part in (turn.tokens, turn.observation)]
        np.testing.assert_array_equal(row[row > 0], np.concatenate([trajectory.prompt, *pieces]))
    assert np.all(padded["prompt_ids"][:, -1] > 0) and np.all(padded["completion_ids"][:, 0] > 0)


def test_lengths_are_spread_or_equal_and_turns_are_several():
    batch = batch_of(equal=False, count=64)
    rest = np.array([t.length - len(t.prompt) for t in batch.trajectories])
    assert rest.max() == 224 and rest.min() == 14
    assert 0.45 < rest.mean() / rest.max() < 0.6
    assert {len(t.turns) for t in batch.trajectories} == {1, 2, 3, 4}
    assert all(len(t.turns[-1].observation) == 0 for t in batch.trajectories)
    assert 0.75 < batch.trained / rest.sum() < 0.95
    assert {t.length for t in batch_of(equal=True).trajectories} == {256}


@pytest.mark.long
def test_update_of_ours_goes_on_from_where_it_left_and_leaves_the_parameters():
    batch = batch_of(equal=False, count=4)
    config = fixture.model_config(vocab_size=50, width=16, layers=1)
    params = fixture.init_params(config)
    packed = fixture.ours(config, params, batch, rows=2, row_length=256)
    first, second = packed.run(), packed.run()
    assert first["trained_tokens"] == batch.trained
    assert first["skipped"] == 0 and second["loss"] < first["loss"]
    assert packed.positions % 512 == 0 and packed.positions >= batch.tokens
    again = fixture.ours(config, params, batch, rows=1, row_length=256, chunk=16).run()
    np.testing.assert_allclose(again["loss"], first["loss"], rtol=1e-5)
    np.testing.assert_allclose(again["grad_norm"], first["grad_norm"], rtol=1e-5)


def test_mfu_is_what_the_matrices_cost_over_the_peak():
    config = fixture.model_config(vocab_size=50, width=16, layers=3)
    weights = 3 * (16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 64) + 50 * 16
    others = 3 * (2 * 16 + 16 + 2 * 8) + 16  # scales and biases
    lengths = [64, 256]
    # Scores and weighted values: two products over the keys before, forward and twice backward.
    attention = sum(3 * 2 * 2 * n * (n / 2) * 16 * 3 for n in lengths)
    expected = 6 * (weights + others) * sum(lengths) + attention
    assert fixture.flops(config, lengths) == pytest.approx(expected)
    found = fixture.mfu(config, lengths, seconds=2e-6, device="NVIDIA H200")
    assert found == pytest.approx(expected / 2e-6 / 989e12)
    with pytest.raises(ValueError, match="the peak of cpu is not known"):
        fixture.mfu(config, lengths, seconds=1.0, device="cpu")
    assert fixture.flops(QWEN2_5_1_5B, [1]) / 6 == pytest.approx(1.54e9, rel=0.01)


@pytest.mark.long
def test_preset_is_measured_in_its_shape(monkeypatch):
    small = fixture.model_config(vocab_size=50, width=16, layers=1)
    monkeypatch.setitem(benchmark.MODELS, "small", small)
    monkeypatch.setitem(fixture.PEAKS, jax.devices()[0].device_kind, 1e12)
    arguments = benchmark.UpdateArguments(
        rounds=1, preset_context=64, preset_trajectories=4, preset_rows=2
    )
    config = benchmark.preset_config("small")
    assert config.param_dtype == config.compute_dtype == "bfloat16"
    found, device = benchmark.preset_mfu(arguments, config)
    assert 0 < found < 1 and device == jax.devices()[0].device_kind
    with pytest.raises(ValueError, match=r"--model-preset must be one of .*, got none"):
        benchmark.preset_config("none")
