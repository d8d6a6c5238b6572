"""The benchmark of needs compares two trees of the repository."""

import json
import pathlib

import pytest

from benchmarks import needs as benchmark
from gtpo_jax import methods

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {"width": 16, "layers": 1, "vocab_size": 64, "trajectories": 2, "context": 32, "rows": 2}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.mark.long
def test_tree_compared_with_itself_costs_the_same(tmp_path):
    path = tmp_path / "figures.json"
    benchmark.run([*OPTIONS, "--rounds=1", f"--before={ROOT}", f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    assert all(figure["value"] is not None for figure in figures.values())
    for kind in ("memory", "operations"):
        assert figures[f"update without needs, now / before, {kind}"]["value"] == 1
        assert figures[f"update, with candidates / without needs, {kind}"]["value"] > 1
    assert figures["largest difference of the gradient norms of the updates"]["value"] == 0


def test_ratios_are_of_medians_and_stay_unmeasured_without_another_tree():
    facts = {
        benchmark.PLAIN: {"memory": 10, "operations": 4},
        benchmark.NEEDY: {"memory": 15, "operations": 5},
    }
    answers = [{"wall": x, "cpu": 2 * x, "norm": 1.0} for x in (1.0, 3.0, 9.0)]
    slower = [{**answer, "wall": 2 * answer["wall"]} for answer in answers]
    taken = {benchmark.PLAIN: answers, benchmark.NEEDY: slower}
    figures = benchmark.figures_of(facts, taken)
    measured = {name: figure.value for name, figure in figures.items() if figure.value is not None}
    begin = "update, with candidates / without needs, "
    expected = {"wall time": 2.0, "CPU time": 1.0, "memory": 1.5, "operations": 1.25}
    assert measured == {begin + kind: value for kind, value in expected.items()}
    assert methods.gtpo().loss.needs == frozenset()


def test_folder_that_is_no_tree_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no gtpo_jax"):
        benchmark.measure(benchmark.NeedsArguments(before=tmp_path))
