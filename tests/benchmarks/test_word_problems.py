"""The benchmark of word problems runs to its end, and resumes where it stopped."""

import json

import pytest

from benchmarks import word_problems
from benchmarks.word_problems import SeedResult
from gtpo_jax.learner.checkpoint import newest_step
from gtpo_jax.results.evaluation import RIGHT
from tests.launch import small
from tests.outcomes import samples


def write_problems(path, numbers):
    lines = [
        {"question": f"Ann has {n} pens and buys {m}. How many now?", "expression": f"{n} + {m}"}
        | {"answer": str(n + m)}
        for n, m in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def seed_result(*, solved):
    """GTPO always solves the first of two problems; GRPO no longer calls in the second."""
    before = [*samples("a", RIGHT, "wrong"), *samples("b", "wrong", "wrong")]
    greedy = [*samples("a", RIGHT if solved else "wrong"), *samples("b", "wrong")]
    outcomes = {
        "cold start": {"sampled": before, "greedy": greedy},
        "GTPO": {"sampled": [*samples("a", RIGHT, RIGHT), *samples("b", "wrong", "wrong")]},
        "GRPO": {"sampled": [*samples("a", RIGHT, "wrong"), *samples("b", "no call", "no call")]},
    }
    return SeedResult(policies={policy: {} for policy in outcomes}, outcomes=outcomes, minutes=None)


def cells(table):
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_where_the_gain_comes_from_is_a_mean_over_seeds():
    results = [seed_result(solved=True), seed_result(solved=False)]
    assert cells(word_problems.failure_table(results)) == [
        ["right", "0.250", "0.500", "0.250"],
        ["wrong", "0.750", "0.500", "0.250"],
        ["failed call", "0.000", "0.000", "0.000"],
        ["badly formed", "0.000", "0.000", "0.000"],
        ["no call", "0.000", "0.000", "0.500"],
        ["cut off", "0.000", "0.000", "0.000"],
    ]
    assert cells(word_problems.part_table(results)) == [
        ["GTPO, solved greedily before", "0.250", "0.250", "0.500", "+0.125"],
        ["GTPO, not solved", "0.750", "0.125", "0.250", "+0.125"],
        ["GRPO, solved greedily before", "0.250", "0.250", "0.250", "+0.000"],
        ["GRPO, not solved", "0.750", "0.125", "0.125", "+0.000"],
    ]


@pytest.mark.slow
@pytest.mark.long
def test_benchmark_compares_both_with_their_cold_start_and_reads_what_is_done(tmp_path, capsys):
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
    first = capsys.readouterr().out
    word_problems.run(options)
    assert (tmp_path / "figures.json").read_text() == written
    second = capsys.readouterr().out
    told = "where the gain comes from"
    assert first.count(told) == 2 and first[first.index(told) :] == second[second.index(told) :]
