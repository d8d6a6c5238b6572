"""Advantages of turns."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import advantages
from tests import reference

NAN = float("nan")
ROWS, TURNS = 64, 3

METHODS = {
    "gtpo": (
        functools.partial(advantages.gtpo_advantages, discount=0.9),
        functools.partial(reference.gtpo, discount=0.9),
    ),
    "grpo": (advantages.grpo_advantages, reference.grpo),
}
each_method = pytest.mark.parametrize("ours, expected", METHODS.values(), ids=METHODS.keys())


@functools.cache
def jitted(ours, options: tuple):
    return jax.jit(functools.partial(ours, **dict(options)))


def call(ours, rows, groups, included=None, *, width=None, fill=0.0, compiled=True, **options):
    rewards, mask = reference.padded(rows, width or max(map(len, rows)), fill=fill)
    included = np.ones(len(rows), bool) if included is None else included
    function = (
        jitted(ours, tuple(options.items())) if compiled else functools.partial(ours, **options)
    )
    return function(rewards, mask, jnp.asarray(groups, jnp.int32), jnp.asarray(included, bool))


def test_gtpo_advantages_of_the_worked_check_match_its_numbers():
    out = call(advantages.gtpo_advantages, [[0.0, 0.0, 1.0], [-0.1, 0.0]], [0, 0])
    expected = [[0.6102, 0.8009, 1.0128], [-1.3179, -1.1061, 0.0]]
    np.testing.assert_allclose(out, expected, atol=6e-5)


@each_method
@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"divide_by_std": False}, {"eps": 0.1}])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_advantages_of_ragged_groups_match_the_reference(ours, expected, options, compiled):
    # T-39 and T-42 as well: a fifth of the rows are excluded.
    rows, groups, included = reference.ragged_batch(
        np.random.default_rng(3), rows=14, width=5, groups=3
    )
    out = call(ours, rows, groups, included, compiled=compiled, **options)
    target, _ = reference.padded(expected(rows, groups, included, **options), 5)
    # float32 against float64; advantages are of order one.
    chex.assert_trees_all_close(out, target, rtol=1e-5, atol=1e-5)


def test_gtpo_advantages_discount_first_and_normalize_then():
    # T-34: the other order gives other numbers.
    rows, groups, included = [[0.1, 0.2, 1.0], [0.3, 0.0]], [0, 0], [True, True]
    out = call(advantages.gtpo_advantages, rows, groups, discount=0.9)
    right, _ = reference.padded(reference.gtpo(rows, groups, included, discount=0.9), 3)
    swapped = reference.returns(reference.normalized(rows, groups, included), 0.9)
    chex.assert_trees_all_close(out, right, atol=1e-5)
    assert float(jnp.max(jnp.abs(reference.padded(swapped, 3)[0] - right))) > 0.3


def test_gtpo_advantages_pool_all_turns_of_the_group_and_of_no_other():
    # T-35: the mean over the batch (.3375), over turn 0 (.35) and over first returns (.35) would
    # all make the first entry positive; the mean over the turns of the group is .675.
    rows = [[0.5, 1.0], [0.2, 1.0], [0.0, 0.0], [0.0, 0.0]]
    out = call(advantages.gtpo_advantages, rows, [0, 0, 1, 1], discount=0.0)
    np.testing.assert_allclose(out[:2], np.subtract(rows[:2], 0.675) / 0.341870, atol=1e-4)
    chex.assert_trees_all_equal(out[2:], jnp.zeros((2, 2)))


def test_gtpo_advantages_weigh_turns_and_grpo_advantages_weigh_trajectories():
    # T-41: three turns with return 1 and one with return 0 have mean 3/4, two trajectories 1/2.
    rows = [[0.0, 0.0, 1.0], [0.0]]
    options = {"divide_by_std": False}
    gtpo = call(advantages.gtpo_advantages, rows, [0, 0], discount=1.0, **options)
    grpo = call(advantages.grpo_advantages, rows, [0, 0], **options)
    chex.assert_trees_all_close(gtpo, jnp.array([[0.25, 0.25, 0.25], [-0.75, 0.0, 0.0]]))
    chex.assert_trees_all_close(grpo, jnp.array([[0.5, 0.5, 0.5], [-0.5, 0.0, 0.0]]))


@pytest.mark.parametrize(
    "options, winner, loser",
    [({}, 1.7320508, -0.5773503), ({"ddof": 0}, 1.7320508, -0.5773503), ({"ddof": 1}, 1.5, -0.5)],
)
def test_advantages_of_one_success_in_four_pin_ddof(options, winner, loser):
    # T-38: ddof 0 is the default.
    for ours in (advantages.gtpo_advantages, advantages.grpo_advantages):
        out = call(ours, [[1.0], [0.0], [0.0], [0.0]], [0] * 4, **options)
        np.testing.assert_allclose(out[:, 0], [winner] + [loser] * 3, atol=1e-5)


@hypothesis.given(
    size=st.integers(1, ROWS),
    reward=st.floats(0.001, 1.0),
    scale=st.sampled_from([1.0, -1.0, 10.0, 1000.0]),
)
def test_advantages_of_equal_returns_are_exactly_zero(size, reward, scale):
    # T-36
    real = np.arange(ROWS) < size
    outcome = np.where(real, np.float32(reward * scale), np.nan).astype(np.float32)
    rewards = np.zeros((ROWS, TURNS), np.float32)
    rewards[:, -1] = outcome
    facts = (jnp.ones((ROWS, TURNS), bool), jnp.zeros(ROWS, jnp.int32), jnp.asarray(real))
    undiscounted = jitted(advantages.gtpo_advantages, (("discount", 1.0),))
    for ours in (undiscounted, jitted(advantages.grpo_advantages, ())):
        assert not np.any(ours(jnp.asarray(rewards), *facts))
    single = facts[0].at[:, 1:].set(False)
    discounted = jitted(advantages.gtpo_advantages, (("discount", 0.9),))
    assert not np.any(discounted(jnp.asarray(rewards[:, ::-1].copy()), single, *facts[1:]))


@hypothesis.given(size=st.integers(2, ROWS), scale=st.sampled_from([1.0, 10.0, 1000.0]))
def test_grpo_advantages_of_sums_equal_up_to_rounding_are_exactly_zero(size, scale):
    # T-36: .1 + .2 + 1 in another order is another float.
    rng = np.random.default_rng(size)
    rewards = np.stack([rng.permutation([0.1, 0.2, 1.0]) for _ in range(ROWS)]) * scale
    out = jitted(advantages.grpo_advantages, ())(
        jnp.asarray(rewards, jnp.float32),
        jnp.ones((ROWS, TURNS), bool),
        jnp.zeros(ROWS, jnp.int32),
        jnp.asarray(np.arange(ROWS) < size),
    )
    assert not np.any(out)


@pytest.mark.parametrize("size", [1000, 5000])
def test_advantages_of_a_large_group_of_equal_returns_are_exactly_zero(size):
    # T-36: the rounding of the mean grows with the group.
    for reward in (0.1, 0.3, 0.7, 123.456):
        out = advantages.normalize_within_groups(
            jnp.full((size, 1), reward, jnp.float32),
            jnp.ones((size, 1), bool),
            jnp.zeros(size, jnp.int32),
        )
        assert not np.any(out)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_advantages_of_returns_one_thousandth_apart_are_not_taken_for_equal(scale):
    out = call(advantages.grpo_advantages, [[1.0 * scale], [1.001 * scale]], [0, 0])
    # float32 keeps four digits of the thousandth, and eps is .2 % of a deviation of .0005.
    np.testing.assert_allclose(out, [[-1.0], [1.0]], atol=3e-3)


@each_method
@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"divide_by_std": False}])
def test_advantage_of_a_lone_single_turn_is_zero(ours, expected, options):
    # T-37: neither the raw reward nor NaN; `included` False turns a pair into a singleton.
    out = call(ours, [[5.0], [5.0], [-3.0]], [0, 1, 1], [True, True, False], **options)
    chex.assert_trees_all_equal(out, jnp.zeros((3, 1)))


@each_method
def test_advantages_of_a_group_no_larger_than_ddof_are_zero(ours, expected):
    # Two entries and ddof 2 leave no degree of freedom, and no deviation to divide by.
    out = call(ours, [[1.0], [0.0]], [0, 0], ddof=2)
    chex.assert_trees_all_equal(out, jnp.zeros((2, 1)))


@each_method
def test_advantages_with_excluded_rows_equal_those_without_them(ours, expected):
    # T-39, T-42: a void trajectory is neither a zero in the baseline nor trained on, NaN included.
    kept = [[0.0, 1.0], [0.2, 0.0], [-0.1, 0.4]]
    alone = call(ours, kept, [0, 0, 0])
    mixed = call(
        ours,
        [kept[0], [NAN, NAN], kept[1], [7.0, 9.0], kept[2]],
        [0, 0, 0, 0, 0],
        [True, False, True, False, True],
    )
    chex.assert_trees_all_close(mixed[jnp.array([0, 2, 4])], alone, rtol=1e-6)
    chex.assert_trees_all_equal(mixed[jnp.array([1, 3])], jnp.zeros((2, 2)))


@each_method
def test_advantages_of_a_group_of_excluded_rows_are_zero(ours, expected):
    rows = [[0.0, 1.0], [0.5, 0.2], [NAN, 1.0], [3.0, 2.0]]
    out = call(ours, rows, [0, 0, 1, 1], [True, True, False, False])
    assert np.all(np.isfinite(out))
    chex.assert_trees_all_equal(out[2:], jnp.zeros((2, 2)))
    assert np.any(out[:2])


@each_method
def test_advantages_with_nan_in_padded_turns_are_unchanged(ours, expected):
    # T-08, T-50
    rows, groups, included = [[0.1, 1.0], [0.3], [0.0, 0.0]], [0, 0, 0], [True] * 3
    clean = call(ours, rows, groups, included)
    wide = call(ours, rows, groups, included, width=6, fill=NAN)
    chex.assert_trees_all_equal(wide[:, 2:], jnp.zeros((3, 4)))
    chex.assert_trees_all_close(wide[:, :2], clean, rtol=1e-6)


def test_gtpo_advantages_with_a_trajectory_without_turns_are_unchanged():
    clean = call(advantages.gtpo_advantages, [[0.0, 1.0], [0.2, 0.0]], [0, 0])
    more = call(advantages.gtpo_advantages, [[0.0, 1.0], [], [0.2, 0.0]], [0, 0, 0])
    chex.assert_trees_all_close(more[jnp.array([0, 2])], clean, rtol=1e-6)
    chex.assert_trees_all_equal(more[1], jnp.zeros(2))


@each_method
@hypothesis.settings(max_examples=30)
@hypothesis.given(
    seed=st.integers(0, 5), rows=st.permutations(range(10)), names=st.permutations(range(10))
)
def test_advantages_of_permuted_rows_and_renamed_groups_are_permuted(
    ours, expected, seed, rows, names
):
    # T-40
    rewards, groups, included = reference.ragged_batch(
        np.random.default_rng(seed), rows=10, width=TURNS, groups=3
    )
    order = np.array(rows)
    before = call(ours, rewards, groups, included, width=TURNS)
    after = call(
        ours,
        [rewards[i] for i in order],
        np.array(names)[groups[order]],
        included[order],
        width=TURNS,
    )
    # Sums run in another order.
    chex.assert_trees_all_close(after, before[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"divide_by_std": False}])
@pytest.mark.parametrize("width", [1, 4])
def test_gtpo_at_discount_one_with_single_turns_is_grpo_bit_for_bit(options, width):
    # T-56
    rng = np.random.default_rng(0)
    outcomes = rng.choice([0.0, 1.0, 0.3, 0.45], size=40)
    facts = ([[x] for x in outcomes], rng.integers(0, 6, 40), rng.random(40) < 0.9)
    options = options | {"width": width, "compiled": False}
    gtpo = call(advantages.gtpo_advantages, *facts, discount=1.0, **options)
    grpo = call(advantages.grpo_advantages, *facts, **options)
    assert np.any(gtpo)
    chex.assert_trees_all_equal(gtpo, grpo)


def test_gtpo_at_discount_one_with_equally_many_turns_is_grpo():
    rows = [[0.0, 0.0, x] for x in (1.0, 0.0, 0.4, 0.0)]
    gtpo = call(advantages.gtpo_advantages, rows, [0] * 4, discount=1.0)
    grpo = call(advantages.grpo_advantages, rows, [0] * 4)
    chex.assert_trees_all_close(gtpo, grpo, rtol=1e-6)


@each_method
def test_advantages_of_all_correct_but_unequal_depth_differ_only_for_discounted_turns(
    ours, expected
):
    out = call(ours, [[0.0, 0.0, 1.0], [1.0]], [0, 0])
    if expected is reference.grpo:
        chex.assert_trees_all_equal(out, jnp.zeros((2, 3)))
    else:
        assert out[0, 0] < 0 < out[0, 2]


@each_method
@pytest.mark.parametrize("shift", [-3.0, 0.7])
def test_advantages_of_shifted_outcomes_are_unchanged(ours, expected, shift):
    rows = [[x] for x in (1.0, 0.0, 0.4, 0.1)]
    before = call(ours, rows, [0] * 4)
    after = call(ours, [[x + shift] for [x] in rows], [0] * 4)
    chex.assert_trees_all_close(after, before, atol=1e-5)


@each_method
def test_advantages_of_scaled_rewards_are_unchanged_by_the_deviation(ours, expected):
    rows, groups, included = reference.ragged_batch(
        np.random.default_rng(5), rows=8, width=3, groups=2
    )
    before = call(ours, rows, groups, included)
    scaled = [[100.0 * x for x in row] for row in rows]
    # eps weighs in with 1e-6 of a deviation of order one.
    chex.assert_trees_all_close(call(ours, scaled, groups, included), before, atol=1e-4)


def test_grpo_without_deviation_is_leave_one_out_times_n_minus_1_over_n():
    values = [1.0, 0.0, 0.4, 0.1]
    out = call(advantages.grpo_advantages, [[x] for x in values], [0] * 4, divide_by_std=False)
    others = [(sum(values) - x) / 3 for x in values]
    np.testing.assert_allclose(out[:, 0], 0.75 * np.subtract(values, others), atol=1e-6)


@each_method
def test_advantages_carry_no_gradient(ours, expected):
    rewards, mask = reference.padded([[0.0, 1.0], [0.3]], 2)
    gradient = jax.grad(
        lambda r: jnp.sum(ours(r, mask, jnp.zeros(2, jnp.int32), jnp.ones(2, bool)) ** 2)
    )(rewards)
    chex.assert_trees_all_equal(gradient, jnp.zeros((2, 2)))
