"""A small demo and comparison: they write everything they promise."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from benchmarks import demo as demo_benchmark
from launch import compare, demo, evaluate
from launch.run import display
from tests.launch import small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished small demo."""
    run_dir = tmp_path_factory.mktemp("demo") / "run"
    arguments = small.parse(demo.DemoArguments, "--run-dir", run_dir)
    return run_dir, demo.run_demo(arguments)


@pytest.mark.slow
def test_demo_writes_what_it_promises(finished):
    run_dir, summary = finished
    assert json.loads((run_dir / "summary.json").read_text()) == summary
    assert (run_dir / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run_dir / "train" / "tensorboard").iterdir())
    assert [r["step"] for r in small.records(run_dir, "train")] == [1, 2, 3, 4, 5, 6]
    for phase in ("cold_start", "gtpo"):
        assert summary[phase]["sampled"]["trajectories"] == 6
        assert set(summary[phase]) == {"sampled", "greedy"}
    assert summary["logprob_gap"] <= 1e-4
    assert {"cold_start", "gtpo"} <= summary["seconds"].keys()
    assert {"jax", "gtpo_jax", "python"} <= summary["versions"].keys()


@pytest.mark.slow
def test_demo_run_can_be_evaluated_again_with_the_same_figures(finished, tmp_path):
    run_dir, summary = finished
    figures = tmp_path / "figures.json"
    evaluate.run([*small.OPTIONS, "--run-dir", str(run_dir), "--json", str(figures)])
    assert json.loads(figures.read_text()) == summary["gtpo"]


@pytest.mark.slow
def test_evaluation_on_a_terminal_shows_the_rollouts_under_way(finished, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    evaluate.run([*small.OPTIONS, "--run-dir", str(finished[0]), "--name", "shown"])
    shown = console.file.getvalue()
    assert "sampled eval" in shown and "greedy eval" in shown


@pytest.mark.slow
@pytest.mark.long
def test_second_demo_keeps_the_first(finished):
    run_dir, _ = finished
    before = (run_dir / "summary.json").read_text()
    demo.run_demo(small.parse(demo.DemoArguments, "--run-dir", run_dir))
    assert (run_dir.with_name("run.1") / "summary.json").read_text() == before


def test_demo_without_gain_fails_only_where_a_gain_is_required(monkeypatch, capsys):
    monkeypatch.setattr(demo, "run_demo", lambda arguments: {"gain": 0.0})
    demo.run(["tiny", "--train.steps", "2"])
    with pytest.raises(SystemExit) as stop:
        demo.run(["--require-gain"])
    assert stop.value.code == demo.EXIT_NOT_BETTER
    assert "sampled success changed by +0.000" in capsys.readouterr().err


@pytest.mark.slow
def test_benchmark_judges_every_figure(finished):
    figures = demo_benchmark.figures_of([finished[1]])
    assert figures["log-prob gap, worst step"].holds is True
    assert figures["GTPO, sampled success"].holds is False
    assert all(figure.bar for figure in figures.values())


@pytest.mark.slow
@pytest.mark.long
def test_comparison_reports_both_methods_with_their_spread(tmp_path):
    arguments = small.parse(
        compare.CompareArguments, "--run-dir", tmp_path / "compare", "--seeds", 1, 2
    )
    result = compare.compare(arguments)
    assert {name: len(runs) for name, runs in result["runs"].items()} == {"gtpo": 2, "grpo": 2}
    for summary in result["summary"].values():
        assert set(summary["sampled_success"]) == {"mean", "std"}
    assert compare.compare(arguments) == result, "a finished comparison is read, not run again"
