"""Optimizers on parameters of lower precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax.learner import optimizers
from tests.rounding import assert_same_sums

STEPS = 400


def run(optimizer, params, gradient):
    """Parameters and state after equal gradients in every step."""

    @jax.jit
    def step(carry):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    carry = params, optimizer.init(params)
    for _ in range(STEPS):
        carry = step(carry)
    return carry


def make_params(dtype):
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.standard_normal((5, 7)), dtype),
        "b": jnp.asarray(rng.standard_normal(3), jnp.float32),
    }


def test_small_steps_on_bfloat16_add_up_as_on_float32():
    params = make_params(jnp.bfloat16)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    gradient = jax.tree.map(lambda p: jnp.sign(p) * 0.5, params)
    plain = optax.adam(1e-5)
    expected, _ = run(plain, wide, gradient)
    found, state = run(optimizers.with_float32_masters(plain), params, gradient)
    assert found["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["a"], state.masters["a"].astype(jnp.bfloat16))
    # One rounding in each of 400 steps, of a way of 4e-3.
    assert_same_sums(state.masters["a"], expected["a"], depth=400)
    # Without masters every one of these steps is rounded away.
    lost, _ = run(plain, params, gradient)
    large = np.abs(np.float32(params["a"])) > 0.1
    np.testing.assert_array_equal(np.asarray(lost["a"])[large], np.asarray(params["a"])[large])
    assert np.mean(np.asarray(found["a"])[large] != np.asarray(params["a"])[large]) > 0.5


def test_float32_parameters_are_their_own_masters():
    params = make_params(jnp.float32)
    gradient = jax.tree.map(lambda p: p * 0.1, params)
    plain = optax.chain(optax.clip_by_global_norm(0.3), optax.adam(1e-3))
    expected, _ = run(plain, params, gradient)
    found, state = run(optimizers.with_float32_masters(plain), params, gradient)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert state.masters == {"a": None, "b": None}


def test_moments_are_float32_and_mixed_trees_have_masters_where_they_need_them():
    state = optimizers.with_float32_masters(optax.adam(1.0)).init(make_params(jnp.bfloat16))
    assert state.masters["b"] is None and state.masters["a"].dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "int32"}


def test_parameters_are_asked_for():
    optimizer = optimizers.with_float32_masters(optax.sgd(1.0))
    params = make_params(jnp.bfloat16)
    with pytest.raises(ValueError, match="need the parameters"):
        optimizer.update(params, optimizer.init(params))
