"""The benchmark of credit assignment runs, and everything it times computes the same numbers."""

import importlib.util
import json
import sys

import chex
import jax
import numpy as np
import pytest

from benchmarks import credit, credit_numpy

pytestmark = pytest.mark.slow

SMALL = {"trajectories": 12, "group_size": 4, "turns": 3, "tokens": 96}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def facts() -> credit_numpy.Facts:
    return credit_numpy.make_facts(**SMALL)


@pytest.mark.parametrize("loop", [credit_numpy.turn_loop, credit_numpy.token_loop])
def test_chain_equals_the_numpy_loops_in_value_and_gradient(facts, loop):
    value, gradient = jax.jit(credit.chain)(facts)
    expected, per_turn = loop(credit_numpy.make_ragged(facts, SMALL["trajectories"]))
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    padded = np.zeros(facts.turn_ids.shape, np.float32)
    for row, turns in enumerate(per_turn):
        for turn, values in enumerate(turns):
            padded[row, facts.turn_ids[row] == turn] = values
    assert np.mean(padded[facts.loss_mask] == 0) > 0.01, "no token is clipped"
    chex.assert_trees_all_close(gradient, padded, rtol=1e-4, atol=1e-8)


def test_loops_agree_where_a_group_has_no_success(facts):
    failures = facts._replace(success=np.zeros_like(facts.success))
    ragged = credit_numpy.make_ragged(failures, SMALL["trajectories"])
    value, _ = jax.jit(credit.chain)(failures)
    np.testing.assert_allclose(value, credit_numpy.turn_loop(ragged)[0], rtol=1e-4, atol=1e-6)


def test_make_facts_gives_every_trajectory_all_its_turns_and_padding(facts):
    for row in facts.turn_ids:
        assert set(row.tolist()) == {-1, 0, 1, 2}
        assert np.all(np.diff(row[row >= 0]) >= 0)
        assert row[0] == row[-1] == -1


def test_benchmark_without_peers_writes_figures_and_leaves_peers_unmeasured(tmp_path):
    path = tmp_path / "figures.json"
    credit.run([*OPTIONS, "--code=64", "--repeats=1", f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    assert figures["verl / ours"]["value"] is None
    assert figures["trl / ours"]["value"] is None
    assert figures["NumPy loop over turns / ours"]["value"] > 0
    share = figures["share of a training step, 1.5B model"]
    assert 0 < share["value"] < 0.01
    assert share["holds"]


def test_benchmark_with_an_interpreter_that_is_not_there_says_so(tmp_path):
    missing = tmp_path / "python"
    with pytest.raises(ValueError, match=r"--peer-python .* does not exist"):
        credit.run([*OPTIONS, "--code=64", f"--peer-python={missing}"])


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="needs an interpreter without torch"
)
def test_benchmark_with_an_interpreter_without_torch_names_what_it_needs():
    with pytest.raises(ValueError, match="torch"):
        credit.run([*OPTIONS, "--code=64", "--repeats=1", f"--peer-python={sys.executable}"])
