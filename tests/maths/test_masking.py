"""Masked sums and the moments of groups."""

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from gtpo_jax.maths import masking
from tests import reference
from tests.rounding import tolerance


def test_masked_mean_of_hand_numbers_counts_only_kept_entries():
    x = jnp.array([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])
    mask = jnp.array([[True, True, False], [True, False, False]])
    total = masking.masked_sum(x, mask)
    assert float(total.total) == 9.0
    assert float(total.weight) == 3.0
    assert float(masking.masked_mean(x, mask)) == 3.0


def test_masked_mean_of_nothing_is_zero_with_zero_gradient():
    x = jnp.array([[jnp.nan, 3.0]])
    value, gradient = jax.value_and_grad(masking.masked_mean)(x, jnp.zeros((1, 2), bool))
    assert float(value) == 0.0
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(x))


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
def test_masked_mean_with_junk_in_dropped_entries_is_unchanged(junk):
    mask = jnp.array([[True, False, True, False]])
    clean = jnp.array([[1.0, 0.0, 5.0, 0.0]])
    value, gradient = jax.value_and_grad(masking.masked_mean)(jnp.where(mask, clean, junk), mask)
    assert float(value) == 3.0
    chex.assert_trees_all_equal(gradient, jnp.array([[0.5, 0.0, 0.5, 0.0]]))


def test_masked_mean_with_more_padding_is_bitwise_unchanged():
    x, mask = reference.padded([[0.1, 0.7, 0.3], [0.9]], 3)
    wide, wide_mask = reference.padded([[0.1, 0.7, 0.3], [0.9]], 8, fill=float("nan"))
    chex.assert_trees_all_equal(masking.masked_sum(x, mask), masking.masked_sum(wide, wide_mask))


def test_weighted_sums_of_unequal_parts_give_the_mean_of_the_whole():
    # The mean of the means, 3.0, is another number.
    x = jnp.array([1.0, 1.0, 1.0, 1.0, 5.0])
    parts = [masking.masked_sum(part, jnp.ones(part.shape, bool)) for part in (x[:4], x[4:])]
    whole = jax.tree.map(jnp.add, *parts)
    np.testing.assert_allclose(float(whole.mean()), 1.8, rtol=1e-6)


def test_masked_sum_of_bfloat16_is_accumulated_in_float32():
    total = masking.masked_sum(jnp.ones(1000, jnp.bfloat16), jnp.ones(1000, bool))
    assert total.total.dtype == jnp.float32
    assert float(total.total) == 1000.0


def test_masked_sum_with_a_mask_of_another_shape_is_refused():
    # Broadcasting would count the mask once and the values many times.
    with pytest.raises(jaxtyping.TypeCheckError):
        masking.masked_sum(jnp.ones((2, 3)), jnp.ones(3, bool))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_group_moments_of_scattered_groups_match_the_reference(ddof, compiled):
    rng = np.random.default_rng(ddof)
    rows, groups, _ = reference.ragged_batch(rng, rows=12, width=5, groups=4)
    values, mask = reference.padded(rows, 5, fill=float("nan"))

    def moments(values, mask, groups):
        return masking.group_moments(values, mask, groups, ddof=ddof)

    call = jax.jit(moments) if compiled else moments
    result = call(values, mask, jnp.asarray(groups, jnp.int32))
    for row, group in enumerate(groups):
        pool = np.concatenate([rows[i] for i in range(12) if groups[i] == group])
        expected = (len(pool), pool.mean(), pool.std(ddof=ddof), np.abs(pool).max())
        # float32 against float64: the deviation is a sum behind a sum.
        bound = tolerance(2 * len(pool), np.abs(pool).max())
        np.testing.assert_allclose([x[row] for x in result], expected, rtol=0, atol=bound)


def test_group_moments_of_an_empty_group_are_zero():
    values = jnp.full((2, 3), jnp.nan)
    result = masking.group_moments(values, jnp.zeros((2, 3), bool), jnp.array([0, 1]))
    chex.assert_trees_all_equal(result, jax.tree.map(jnp.zeros_like, result))


def test_group_moments_of_a_single_entry_have_no_deviation():
    values, mask = reference.padded([[0.3], [0.7]], 1)
    result = masking.group_moments(values, mask, jnp.array([0, 1]))
    chex.assert_trees_all_equal(result.mean, values[:, 0])
    chex.assert_trees_all_equal(result.std, jnp.zeros(2))


def test_group_moments_of_many_equal_values_deviate_by_rounding_only():
    # A sum over thousands of rows rounds by far more than one unit in the last place.
    rows = 5000
    values = jnp.full((rows, 1), 0.3, jnp.float32)
    result = masking.group_moments(values, jnp.ones((rows, 1), bool), jnp.zeros(rows, jnp.int32))
    chex.assert_trees_all_close(result.mean, values[:, 0], rtol=2e-7)
    assert float(jnp.max(result.std)) <= 1e-7
