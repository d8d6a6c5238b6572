"""The benchmark of shared prompts runs and counts what its figures say."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import prefix

pytestmark = pytest.mark.slow

OPTIONS = ["--prompt=128", "--suffix=16", "--group=4", "--width=64", "--repeats=1"]
SMALL = prefix.PrefixArguments(prompt=128, suffix=16, group=4, width=64, repeats=1)


@pytest.mark.long
def test_benchmark_writes_figures_and_both_ways_have_one_gradient(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix, "QWEN", prefix.make_config(SMALL))
    path = tmp_path / "figures.json"
    prefix.run([*OPTIONS, f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    assert figures["tokens, repeated"]["value"] == 4 * (128 + 16)
    assert figures["tokens, shared"]["value"] == 127 + 4 * 17
    assert figures["largest difference of the gradients"]["holds"]
    for name, least in (("FLOPs", 3.5), ("update", 2.5)):
        values = {way: figures[f"{name}, {way}"]["value"] for way in ("repeated", "shared")}
        ratio = figures[f"{name}, repeated / shared"]
        assert ratio["value"] == pytest.approx(values["repeated"] / values["shared"])
        assert ratio["bar"] == f">= {least}"
    assert figures["FLOPs, repeated / shared"]["value"] > 2
    assert figures["FLOPs, repeated / shared, Qwen2.5-1.5B"]["value"] == pytest.approx(
        figures["FLOPs, repeated / shared"]["value"]
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_flops_are_those_of_the_products_of_all_layers_and_rows(layers):
    config = prefix.make_config(dataclasses.replace(SMALL, layers=layers))
    batch = prefix.make_batches(SMALL, config.vocab_size)["repeated"]
    tokens, length = batch.tokens.size, batch.tokens.shape[-1]
    matrices = 4 * config.width**2 + 3 * config.width * config.mlp_width
    layer = 2 * matrices + 4 * length * config.width
    # The backward pass has two products for each.
    products = 3 * tokens * (layers * layer + 2 * config.width * config.vocab_size)
    assert 1.0 < prefix.count_flops(config, batch) / products < 1.15


def test_rows_are_full_and_hold_the_same_trajectories():
    batches = prefix.make_batches(SMALL, 100)
    assert batches["repeated"].tokens.shape == (4, 1, 144)
    assert batches["shared"].tokens.shape == (1, 1, 195)
    trained = []
    for batch in batches.values():
        facts = (batch.tokens, batch.positions, batch.trajectory_ids)
        columns = np.stack([field[batch.loss_mask] for field in facts])
        trained.append(columns[:, np.lexsort(columns)])
    np.testing.assert_array_equal(*trained)
    assert all(np.all(batch.segment_ids > 0) for batch in batches.values())
