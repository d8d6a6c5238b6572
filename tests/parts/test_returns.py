"""Discounted returns over turns."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import turns
from gtpo_jax.parts.credit.discounted import discounted_returns, discounted_returns_closed_form
from tests import reference


def test_returns_of_hand_numbers_are_exact():
    out = discounted_returns(jnp.array([[0.1, 0.2, 1.0]]), jnp.ones((1, 3), bool), discount=0.9)
    chex.assert_trees_all_close(out, jnp.array([[1.09, 1.1, 1.0]]), rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9, 1.0])
def test_returns_of_ragged_rewards_match_the_double_sum(discount, compiled):
    rows, _, _ = reference.ragged_batch(np.random.default_rng(1), rows=9, width=6, groups=1)
    rewards, mask = reference.padded(rows, 6)

    def call(rewards, mask):
        return discounted_returns(rewards, mask, discount=discount)

    out = (jax.jit(call) if compiled else call)(rewards, mask)
    expected, _ = reference.padded(reference.returns(rows, discount), 6)
    chex.assert_trees_all_close(out, expected, rtol=1e-6, atol=1e-6)


def test_returns_at_discount_zero_are_the_rewards():
    rewards, mask = reference.padded([[0.3, -0.1, 1.0], [0.7]], 3)
    out = discounted_returns(rewards, mask, discount=0.0)
    chex.assert_trees_all_equal(out, rewards)


def test_returns_of_a_terminal_reward_at_discount_one_reach_every_turn():
    # Nothing between turns takes part, so the reward crosses every observation.
    rewards, mask = reference.padded([[0.0, 0.0, 0.0, 0.7]], 6)
    out = discounted_returns(rewards, mask, discount=1.0)
    chex.assert_trees_all_equal(out, jnp.where(mask, jnp.float32(0.7), 0.0))


def test_returns_per_token_do_not_depend_on_the_lengths_of_turns_and_tool_outputs():
    # Constant within a turn, and the same for one token or seven.
    out = discounted_returns(jnp.array([[0.1, 0.2, 1.0]]), jnp.ones((1, 3), bool), discount=0.9)
    short = jnp.array([[-1, 0, -1, 1, -1, 2]])
    long = jnp.array([[-1, -1, 0, 0, 0, 0, -1, 1, 1, -1, -1, -1, -1, 2, 2, 2, 2, 2, 2, 2]])
    for turn_ids in (short, long):
        tokens = turns.broadcast_to_tokens(out, jnp.zeros_like(turn_ids), turn_ids)
        for turn, value in enumerate((1.09, 1.1, 1.0)):
            np.testing.assert_allclose(tokens[turn_ids == turn], value, rtol=1e-6)
        assert not np.any(tokens[turn_ids < 0])


def test_returns_with_nan_in_masked_turns_are_unchanged():
    rows = [[0.1, 0.2], [0.5], []]
    clean = discounted_returns(*reference.padded(rows, 2), discount=0.9)
    wide = discounted_returns(*reference.padded(rows, 7, fill=float("nan")), discount=0.9)
    chex.assert_trees_all_equal(wide, jnp.pad(clean, ((0, 0), (0, 5))))
    chex.assert_trees_all_equal(wide[2], jnp.zeros(7))


def test_returns_outside_the_mask_are_zero_even_between_turns():
    mask = jnp.array([[True, False, True]])
    out = discounted_returns(jnp.array([[0.5, jnp.nan, 1.0]]), mask, discount=0.5)
    chex.assert_trees_all_equal(out, jnp.array([[0.75, 0.0, 1.0]]))


def test_returns_of_one_row_with_nan_leave_the_others_alone():
    rewards, mask = reference.padded([[0.1, 0.2], [float("nan"), 1.0]], 2)
    out = discounted_returns(rewards, mask, discount=0.9)
    np.testing.assert_allclose(out[0], [0.28, 0.2], rtol=1e-6)


def test_returns_differentiate_to_powers_of_the_discount():
    mask = jnp.array([[True, True, True, False]])
    gradient = jax.grad(lambda r: discounted_returns(r, mask, discount=0.5)[0, 0])(jnp.ones((1, 4)))
    chex.assert_trees_all_close(gradient, jnp.array([[1.0, 0.5, 0.25, 0.0]]))


FORMS = [discounted_returns, discounted_returns_closed_form]
each_form = pytest.mark.parametrize("form", FORMS, ids=["recursion", "closed"])
compiled_forms = [jax.jit(lambda r, m, d, f=f: f(r, m, discount=d)) for f in FORMS]


@hypothesis.given(
    seed=st.integers(0, 2**31), discount=st.floats(0.0, 1.0, width=32), scale=st.floats(0.01, 100.0)
)
@hypothesis.settings(max_examples=60)
def test_returns_in_closed_form_are_those_of_the_recursion(seed, discount, scale):
    rows, _, _ = reference.ragged_batch(np.random.default_rng(seed), rows=8, width=7, groups=1)
    rows = [[scale * x for x in row] for row in rows]
    rewards, mask = reference.padded(rows, 7, fill=float("nan"))
    expected, _ = reference.padded(reference.returns(rows, discount), 7)
    for form in compiled_forms:
        out = form(rewards, mask, jnp.float32(discount))
        # Seven float32 values of order `scale`, which may cancel.
        chex.assert_trees_all_close(out, expected, rtol=1e-5, atol=3e-6 * scale)
    assert compiled_forms[0]._cache_size() == compiled_forms[1]._cache_size() == 1


@each_form
@pytest.mark.parametrize("discount, expected", [(0, [1.0, -2.0, 4.0]), (1, [3.0, 2.0, 4.0])])
def test_returns_and_their_gradients_at_the_ends_of_the_range_are_finite(form, discount, expected):
    rewards, mask = reference.padded([[1.0, -2.0, 4.0]], 5)
    out = form(rewards, mask, discount=discount)
    chex.assert_trees_all_equal(out, jnp.array([[*expected, 0.0, 0.0]]))
    slope = jax.jacobian(lambda d: form(rewards, mask, discount=d))(float(discount))
    # d/dγ of (1 − 2γ + 4γ², −2 + 4γ, 4)
    chex.assert_trees_all_close(slope, jnp.array([[8.0 * discount - 2.0, 4.0, 0.0, 0.0, 0.0]]))


@each_form
@pytest.mark.parametrize("discount", [-0.1, 1.01, 90, float("nan")])
def test_returns_with_a_discount_outside_zero_and_one_are_refused(form, discount):
    rewards, mask = reference.padded([[1.0]], 1)
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\]"):
        form(rewards, mask, discount=discount)
