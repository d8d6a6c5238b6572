"""The benchmark of word problems goes its whole way, and goes on where it stopped."""

import json

import pytest

from benchmarks import word_problems
from gtpo_jax.checkpoint import newest_step
from tests.launch import small

pytestmark = [pytest.mark.slow, pytest.mark.long]


def write_problems(path, numbers):
    lines = [
        {"question": f"Ann has {n} pens and buys {m}. How many now?", "expression": f"{n} + {m}"}
        | {"answer": str(n + m)}
        for n, m in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_benchmark_compares_both_with_their_cold_start_and_reads_what_is_done(tmp_path):
    write_problems(tmp_path / "train.jsonl", [(n, n + 20) for n in range(11, 41)])
    write_problems(tmp_path / "eval.jsonl", [(n, 3) for n in range(11, 17)])
    options = [
        *small.OPTIONS,
        f"--task.train-file={tmp_path / 'train.jsonl'}",
        f"--task.eval-file={tmp_path / 'eval.jsonl'}",
        *("--model.vocab-size=160", "--train.steps=2", "--evaluation.samples=2", "--seeds=1"),
        *("--sft.steps=2", f"--run-dir={tmp_path / 'runs'}", f"--json={tmp_path / 'figures.json'}"),
    ]
    word_problems.run(options)
    written = (tmp_path / "figures.json").read_text()
    figures = json.loads(written)["figures"]
    assert {name: f["bar"] for name, f in figures.items() if f["bar"]} == {
        "gain of GTPO, avg@2": ">= 0.05",
        "cold start and GTPO, slowest seed": "<= 40",
    }
    assert all(figure["value"] is not None for figure in figures.values())
    gain = figures["GTPO, avg@2"]["value"] - figures["cold start, avg@2"]["value"]
    assert figures["gain of GTPO, avg@2"]["value"] == pytest.approx(gain)
    for run in ("gtpo-1", "grpo-1"):
        assert newest_step(tmp_path / "runs" / run / "train" / "checkpoints") == 2
    word_problems.run(options)
    assert (tmp_path / "figures.json").read_text() == written
