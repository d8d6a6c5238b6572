"""Advantages of single methods against the formulas and numbers of their papers."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from tests import reference
from tests.methods.test_advantages import MEMBERS, OPTIONS, TURNS, call


def test_gtpo_advantages_of_the_worked_check_match_its_numbers():
    out = call("gtpo", [[0.0, 0.0, 1.0], [-0.1, 0.0]], [0, 0])
    expected = [[0.6102, 0.8009, 1.0128, 0.0], [-1.3179, -1.1061, 0.0, 0.0]]
    np.testing.assert_allclose(out, expected, atol=6e-5)


def test_gtpo_advantages_discount_first_and_normalize_then():
    # The other order gives other numbers.
    rows, groups, included = [[0.1, 0.2, 1.0], [0.3, 0.0]], [0, 0], [True, True]
    right, _ = reference.padded(reference.gtpo(rows, groups, included, discount=0.9), TURNS)
    swapped = reference.returns(reference.normalized(rows, groups, included), 0.9)
    chex.assert_trees_all_close(call("gtpo", rows, groups), right, atol=1e-5)
    assert float(jnp.max(jnp.abs(reference.padded(swapped, TURNS)[0] - right))) > 0.3


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(pytest.param({k: OPTIONS[k]}, marks=pytest.mark.slow) for k in ("ddof", "divide_by_std")),
    ],
)
@pytest.mark.parametrize("width", [1, 4])
def test_gtpo_at_discount_one_with_single_turns_is_grpo_bit_for_bit(options, width):
    rng = np.random.default_rng(0)
    outcomes = rng.choice([0.0, 1.0, 0.3, 0.45], size=40)
    rewards, mask = reference.padded([[x] for x in outcomes], width)
    batch = (rewards, mask, jnp.asarray(rng.integers(0, 6, 40)), jnp.asarray(rng.random(40) < 0.9))
    gtpo = methods.gtpo_advantages(*batch, discount=1.0, **options)
    assert np.any(gtpo)
    chex.assert_trees_all_equal(gtpo, methods.grpo_advantages(*batch, **options))


def test_gtpo_at_discount_one_with_equally_many_turns_is_grpo():
    batch = ([[0.0, 0.0, x] for x in (1.0, 0.0, 0.4, 0.0)], [0] * 4)
    chex.assert_trees_all_close(call("gtpo", *batch, discount=1.0), call("grpo", *batch), rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in MEMBERS if n != "mt_grpo"])
def test_advantages_of_all_correct_but_unequal_depth_differ_only_for_discounted_turns(name):
    out = call(name, [[0.0, 0.0, 1.0], [1.0]], [0, 0])
    if MEMBERS[name].undiscounted:
        assert not np.any(out)
    elif name == "gtpo_turn_index":
        assert out[0, 0] < 0 < out[1, 0]
    else:
        assert out[0, 0] < out[0, 2] and np.any(out)


def test_rloo_is_n_over_n_minus_1_times_the_centered_reward():
    rows, groups, included = reference.ragged_batch(
        np.random.default_rng(8), rows=20, width=TURNS, groups=4
    )
    sizes = np.array([sum(included[j] for j in range(20) if groups[j] == g) for g in groups])
    assert sizes.min() > 1
    centered = call("dr_grpo", rows, groups, included)
    expected = centered * (sizes / (sizes - 1))[:, None]
    chex.assert_trees_all_close(
        call("rloo", rows, groups, included), expected.astype(np.float32), rtol=1e-5
    )


@pytest.mark.parametrize("turn_weight", [0.0, 0.5, 1.0])
def test_mt_grpo_of_two_turns_is_the_formula_of_the_paper(turn_weight):
    # Before the tool's result A_O + λ A_T, behind it A_O.
    tool, outcome = np.array([0.2, 0.0, 0.5, 0.1]), np.array([1.0, 0.0, 0.0, 1.0])
    first = (outcome - 0.5) / 0.5 + turn_weight * (tool - tool.mean()) / tool.std()
    out = call("mt_grpo", list(zip(tool, outcome, strict=True)), [0] * 4, turn_weight=turn_weight)
    expected = np.stack([first, (outcome - 0.5) / 0.5, 0 * first, 0 * first], axis=1)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_reinforce_plus_plus_undiscounted_whitens_the_rewards_to_go_of_the_batch():
    rows, groups, _ = reference.ragged_batch(
        np.random.default_rng(6), rows=12, width=TURNS, groups=3
    )
    togo = np.concatenate([np.cumsum(row[::-1])[::-1] for row in rows])
    white = (togo - togo.mean()) / togo.std()
    out = call("reinforce_plus_plus", rows, groups)
    found = np.concatenate([out[i, : len(row)] for i, row in enumerate(rows)])
    np.testing.assert_allclose(found, white, atol=2e-5)
    np.testing.assert_allclose([found.mean(), found.std()], [0.0, 1.0], atol=1e-5)
