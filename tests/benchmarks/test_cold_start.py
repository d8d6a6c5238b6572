"""The benchmark of cold starts counts seeds that pass the gate, and resumes where it stopped."""

import json

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import SeedResult
from gtpo_jax.learner.checkpoint import newest_step
from tests.launch import small


def result(seed, gate, *, sampled=0.4, cpu_seconds: float | None = 60.0):
    return SeedResult(seed=seed, gate=gate, sampled=sampled, cpu_seconds=cpu_seconds)


def test_one_seed_below_the_gate_breaks_the_bar():
    good, bad = result(0, 0.95), result(1, 0.85, cpu_seconds=None)
    passing = cold_start.figures_of([good, good], gate=0.9)
    assert {name: f.holds for name, f in passing.items() if f.bar} == {
        "seeds that pass, of 2": True,
        "greedy success on arithmetic, worst seed": True,
        "sampled success, mean": True,
    }
    failing = cold_start.figures_of([good, bad], gate=0.9)
    assert failing["seeds that pass, of 2"].value == 1
    assert failing["seeds that pass, of 2"].holds is False
    assert failing["greedy success on arithmetic, worst seed"].value == 0.85
    assert failing["CPU time of a cold start, mean"].value == 60.0, "that of an interrupted one"


@pytest.mark.parametrize("sampled", [0.1, 0.6])
def test_reinforcement_needs_something_to_go_on_and_something_to_learn(sampled):
    figures = cold_start.figures_of([result(0, 1.0, sampled=sampled)], gate=0.9)
    assert figures["sampled success, mean"].holds is False


def test_no_seed_is_bad_input():
    with pytest.raises(ValueError, match="at least one"):
        small.parse(cold_start.ColdStartArguments, "--seeds")


@pytest.mark.long
def test_benchmark_reads_what_is_done_and_refuses_other_settings(tmp_path, monkeypatch):
    options = [
        *(*small.OPTIONS, "--sft.steps=2", "--seeds", "4"),
        *(f"--run-dir={tmp_path / 'runs'}", f"--json={tmp_path / 'figures.json'}"),
    ]
    cold_start.run(options)
    written = (tmp_path / "figures.json").read_text()
    found = json.loads(written)["figures"]
    assert found["seeds that pass, of 1"]["bar"] == ">= 1"
    assert newest_step(tmp_path / "runs" / "seed-4" / "sft" / "checkpoints") == 2

    def again(*_, **__):
        raise AssertionError("what is done is not done again")

    monkeypatch.setattr(cold_start, "run_sft", again)
    cold_start.run(options)
    assert (tmp_path / "figures.json").read_text() == written
    with pytest.raises(ValueError, match="made with other settings"):
        cold_start.run([*options, "--sft.steps=3"])
