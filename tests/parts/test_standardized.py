"""The set over which mean and deviation are taken, and the sets that count as equal."""

import functools

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.parts import credit
from gtpo_jax.parts.credit.standardized import normalize
from tests import reference

pytestmark = pytest.mark.slow

SETS = {
    "group": functools.partial(normalize, over=credit.group),
    "index": functools.partial(normalize, over=credit.turn_index),
    "first": functools.partial(normalize, over=credit.first_turn),
    "batch": functools.partial(normalize, over=credit.batch),
}


@pytest.mark.parametrize(
    "over, signs",
    [
        ("group", [[-1, 1], [-1, 1]]),  # mean .65
        ("index", [[1, -1], [-1, 1]]),  # means .35 and .95
        ("first", [[1, 1], [-1, 1]]),  # mean .35
        ("batch", [[-1, -1], [-1, -1]]),  # mean 1.325
    ],
)
def test_the_same_turn_has_another_sign_in_another_set(over, signs):
    # The group is the default; every set is pinned, on one and the same data.
    rows, groups = [[0.5, 0.9], [0.2, 1.0], [2.0, 2.0], [2.0, 2.0]], [0, 0, 1, 1]
    values, mask = reference.padded(rows, 2)
    out = SETS[over](values, mask, jnp.array(groups))
    np.testing.assert_array_equal(np.sign(out[:2]), signs)
    expected = reference.normalized(rows, groups, [True] * 4, over=over)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    # The other group is equal in itself; only the batch tells it apart.
    assert bool(jnp.all(out[2:] > 0)) == (over == "batch")


@pytest.mark.slow
@pytest.mark.parametrize("over", SETS)
@pytest.mark.parametrize("size", [1000, 5000])
def test_a_large_set_of_equal_values_gives_exactly_zero(over, size):
    # The rounding of the mean grows with the set.
    for value in (0.1, 0.3, 0.7, 123.456):
        out = SETS[over](
            jnp.full((size, 1), value, jnp.float32),
            jnp.ones((size, 1), bool),
            jnp.zeros(size, jnp.int32),
        )
        assert not np.any(out)


@pytest.mark.parametrize("over", SETS)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_values_one_thousandth_apart_are_not_taken_for_equal(over, scale):
    values = jnp.array([[1.0], [1.001]], jnp.float32) * scale
    out = SETS[over](values, jnp.ones((2, 1), bool), jnp.zeros(2, jnp.int32))
    # float32 keeps four digits of the thousandth, and eps is .2 % of a deviation of .0005.
    np.testing.assert_allclose(out, [[-1.0], [1.0]], atol=3e-3)


def test_threshold_is_relative_to_the_largest_magnitude_and_may_be_set():
    values = jnp.array([[1.0], [1.001]], jnp.float32)
    arguments = (values, jnp.ones((2, 1), bool), jnp.zeros(2, jnp.int32))
    assert not np.any(normalize(*arguments, relative_threshold=1e-3))
    assert np.all(normalize(*arguments, relative_threshold=4e-4))


def test_equal_first_turns_give_zero_on_every_turn():
    values, mask = reference.padded([[1.0, 0.5], [1.0, 3.0]], 2)
    out = SETS["first"](values, mask, jnp.zeros(2, jnp.int32))
    chex.assert_trees_all_equal(out, jnp.zeros((2, 2)))


def test_eps_zero_divides_by_the_deviation_alone_and_equal_values_stay_finite():
    values = jnp.array([[0.0], [1e-3], [5.0], [5.0]], jnp.float32)
    out = normalize(values, jnp.ones((4, 1), bool), jnp.array([0, 0, 1, 1]), eps=0.0)
    np.testing.assert_allclose(out[:, 0], [-1.0, 1.0, 0.0, 0.0], rtol=1e-6)


def test_bfloat16_values_are_normalized_in_float32():
    values, mask = reference.padded([[0.5, 1.0], [0.25, 2.0]], 2)
    ids = jnp.zeros(2, jnp.int32)
    out = normalize(values.astype(jnp.bfloat16), mask, ids)
    assert out.dtype == jnp.float32
    chex.assert_trees_all_equal(out, normalize(values, mask, ids))
