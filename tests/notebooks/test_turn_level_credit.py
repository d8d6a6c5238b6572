"""The notebook runs from its first cell to its last, and what it computes is right."""

import json

import nbformat
import numpy as np
import pytest

from tests import reference
from tests.notebooks.kernel import ROOT, execute, pictures

PATH = ROOT / "notebooks" / "turn_level_credit.ipynb"

# One cell more, so that the test sees the numbers and not only that nothing was raised.
REPORT = """
import json
print(json.dumps({
    "rewards": gtpo.rewards.tolist(),
    "returns": turn_returns.tolist(),
    "gtpo": gtpo.advantages.tolist(),
    "grpo": grpo.advantages.tolist(),
    "bounded": bounded.advantages.tolist(),
    "discounts": discounts.tolist(),
    "sweep": sweep.tolist(),
    "traces": traces,
    "tests": [test.__name__ for test in tests],
    "token_advantages": row_gtpo.token_advantages.tolist(),
    "loss_mask": row_gtpo.loss_mask.tolist(),
}))
"""
COUNTS = [3, 3, 3, 1]


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    return execute(PATH, REPORT)


@pytest.fixture(scope="module")
def computed(executed) -> dict:
    (output,) = executed.cells[-1].outputs
    return json.loads(output.text)


def ragged(values: list[list[float]]) -> list[list[float]]:
    return [row[:count] for row, count in zip(values, COUNTS, strict=True)]


def padded(rows: list[list[float]]) -> np.ndarray:
    return np.asarray(reference.padded(rows, 3)[0])


@pytest.mark.slow
def test_notebook_rewards_are_the_outcome_the_penalty_and_the_partial_credit(computed):
    rewards = np.array(computed["rewards"])
    near_miss, broken = rewards[1, 2], rewards[2, 2]
    assert 0.4 < near_miss < 0.5, "its code is nearly that of the success"
    assert 0.0 < broken < near_miss
    expected = [[0, 0, 1], [0, 0, near_miss], [-0.1, 0, broken], [-0.1, 0, 0]]
    np.testing.assert_allclose(rewards, expected, atol=1e-7)


@pytest.mark.slow
def test_notebook_returns_and_advantages_match_the_references(computed):
    rewards, groups, included = ragged(computed["rewards"]), [0] * 4, [True] * 4
    returns = reference.returns(rewards, 0.9)
    gtpo = reference.gtpo(rewards, groups, included, discount=0.9)
    outcomes = [[0.0, 0.0, 1.0], [0.0] * 3, [0.0] * 3, [0.0]]
    grpo = reference.grpo(outcomes, groups, included)
    np.testing.assert_allclose(computed["returns"], padded(returns), atol=1e-6)
    np.testing.assert_allclose(computed["gtpo"], padded(gtpo), atol=1e-5)
    np.testing.assert_allclose(computed["grpo"], padded(grpo), atol=1e-5)


@pytest.mark.slow
def test_notebook_sweep_of_the_discount_traces_once_and_matches_the_reference(computed):
    assert computed["traces"] == 1
    rewards = ragged(computed["rewards"])
    assert len(computed["discounts"]) == len(computed["sweep"]) > 10
    for discount, swept in zip(computed["discounts"], computed["sweep"], strict=True):
        expected = reference.gtpo(rewards, [0] * 4, [True] * 4, discount=discount)
        np.testing.assert_allclose(swept, padded(expected), atol=1e-5)


@pytest.mark.slow
def test_notebook_custom_advantage_is_the_return_on_the_scale_of_the_largest(computed):
    rewards = ragged(computed["rewards"])
    returns = reference.returns(rewards, 0.9)
    pool = np.concatenate(returns)
    scale, mean = np.max(np.abs(pool)), np.mean(pool)
    expected = [[(x - mean) / scale for x in row] for row in returns]
    np.testing.assert_allclose(computed["bounded"], padded(expected), atol=1e-6)
    assert len(computed["tests"]) >= 5


@pytest.mark.slow
def test_notebook_colors_only_what_the_policy_wrote(computed):
    values, mask = np.array(computed["token_advantages"]), np.array(computed["loss_mask"])
    assert np.all(values[~mask] == 0)
    colors = set(values[mask].tolist())
    assert colors == {float(np.float32(x)) for row in ragged(computed["gtpo"]) for x in row}


@pytest.mark.slow
def test_notebook_shows_its_pictures_and_the_committed_file_is_small(executed):
    assert pictures(executed) == 4
    assert PATH.stat().st_size < 300_000
