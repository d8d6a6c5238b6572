"""Keys of trajectories: functions of seed, step, problem and sample alone."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.decoding import sampling

pytestmark = pytest.mark.slow


def keys_of(problems, samples, seed: int = 0, step: int = 0) -> jax.Array:
    return sampling.trajectory_keys(
        jnp.uint32(seed), jnp.int32(step), jnp.asarray(problems, jnp.uint32), jnp.asarray(samples)
    )


def test_trajectory_keys_depend_on_the_trajectory_and_not_on_its_batch():
    problems = [7, 7, 9, 4_000_000_000, 9]
    samples = [0, 1, 0, 0, 1]
    data = jax.random.key_data(keys_of(problems, samples, seed=3, step=5))
    order = [4, 2, 0, 3, 1]
    shuffled = keys_of([problems[i] for i in order], [samples[i] for i in order], 3, 5)
    chex.assert_trees_all_equal(jax.random.key_data(shuffled), data[jnp.array(order)])
    alone = keys_of([9], [1], 3, 5)
    chex.assert_trees_all_equal(jax.random.key_data(alone)[0], data[4])
    jitted = jax.jit(sampling.trajectory_keys)(
        jnp.uint32(3), jnp.int32(5), jnp.asarray(problems, jnp.uint32), jnp.asarray(samples)
    )
    chex.assert_trees_all_equal(jax.random.key_data(jitted), data)


def test_trajectory_keys_of_different_trajectories_all_differ():
    # Each of seed, step, problem and sample counts, and swapping two of them is another trajectory.
    pairs = list(itertools.product(range(4), repeat=2))
    problems, samples = zip(*pairs, strict=True)
    seen = {
        tuple(row)
        for seed, step in itertools.product(range(3), repeat=2)
        for row in np.asarray(jax.random.key_data(keys_of(problems, samples, seed, step))).tolist()
    }
    assert len(seen) == 3 * 3 * len(pairs)


def test_trajectory_keys_may_be_used_once_each_without_reuse():
    with jax.debug_key_reuse(True):
        keys = keys_of([1, 2], [0, 0])
        sampling.categorical(keys, jnp.zeros((2, 8)))
        with pytest.raises(jax.errors.KeyReuseError):
            sampling.categorical(keys, jnp.zeros((2, 8)))
