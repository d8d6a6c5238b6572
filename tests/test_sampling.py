"""Choosing the next token."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import sampling
from tests import reference

DRAWS = 20_000
STANDARD_ERRORS = 4.5  # chance of one false alarm in 50 comparisons: below 1 in 2000


def random_logits(rows: int, width: int = 8, seed: int = 0) -> jax.Array:
    return jnp.asarray(2.0 * np.random.default_rng(seed).normal(size=(rows, width)), jnp.float32)


def keys_of(problems, samples, seed: int = 0, step: int = 0) -> jax.Array:
    return sampling.trajectory_keys(
        jnp.uint32(seed), jnp.int32(step), jnp.asarray(problems, jnp.uint32), jnp.asarray(samples)
    )


@pytest.mark.parametrize("sampler", [sampling.categorical, sampling.greedy])
def test_masked_vocabulary_is_never_sampled(sampler, key):
    # T-13: the padded rows of the embedding would win every draw.
    logits = jnp.broadcast_to(random_logits(1).at[:, 5:].add(50.0), (2000, 8))
    masked = sampling.mask_vocabulary(logits, 5)
    tokens, logprobs = jax.jit(sampler)(jax.random.split(key, 2000), masked)
    assert int(tokens.min()) >= 0 and int(tokens.max()) < 5
    # The probabilities are those over what can be drawn.
    expected = np.array(reference.log_softmax(logits[0, :5].tolist(), 1.0))
    np.testing.assert_allclose(logprobs, expected[np.asarray(tokens)], atol=1e-5)


def test_mask_vocabulary_of_the_full_width_changes_nothing():
    logits = random_logits(3)
    chex.assert_trees_all_equal(sampling.mask_vocabulary(logits, 8), logits)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_categorical_frequencies_are_within_standard_errors(temperature, key):
    logits = random_logits(1)[0]
    tokens, _ = jax.jit(functools.partial(sampling.categorical, temperature=temperature))(
        jax.random.split(key, DRAWS), jnp.broadcast_to(logits, (DRAWS, 8))
    )
    share = np.bincount(np.asarray(tokens), minlength=8) / DRAWS
    p = np.exp(reference.log_softmax(logits.tolist(), temperature))
    assert np.all(np.abs(share - p) <= STANDARD_ERRORS * np.sqrt(p * (1 - p) / DRAWS))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_categorical_logprob_is_that_of_the_distribution_drawn_from(temperature, compiled, key):
    # T-20: log-softmax at the temperature of the draw, in float32.
    logits = random_logits(64)
    call = functools.partial(sampling.categorical, temperature=temperature)
    tokens, logprobs = (jax.jit(call) if compiled else call)(jax.random.split(key, 64), logits)
    chex.assert_type([tokens, logprobs], [jnp.int32, jnp.float32])
    expected = [
        reference.log_softmax(row.tolist(), temperature)[token]
        for row, token in zip(np.asarray(logits), np.asarray(tokens), strict=True)
    ]
    np.testing.assert_allclose(logprobs, expected, rtol=1e-5, atol=2e-6)


def test_categorical_row_depends_on_its_own_key_and_logits_only(key):
    keys, logits = jax.random.split(key, 16), random_logits(16)
    tokens, logprobs = sampling.categorical(keys, logits)
    order = np.random.default_rng(0).permutation(16)[:5]
    some = sampling.categorical(keys[order], logits[order])
    chex.assert_trees_all_equal(some[0], tokens[order])
    chex.assert_trees_all_close(some[1], logprobs[order], rtol=1e-6)


def test_categorical_with_one_key_per_row_draws_rows_independently(key):
    # With a shared key all rows of equal logits would draw the same token.
    tokens, _ = sampling.categorical(jax.random.split(key, 64), jnp.zeros((64, 8)))
    assert len(set(np.asarray(tokens).tolist())) == 8


def test_categorical_of_bfloat16_logits_computes_in_float32(key):
    logits = random_logits(32).astype(jnp.bfloat16)
    keys = jax.random.split(key, 32)
    low = sampling.categorical(keys, logits, temperature=0.7)
    high = sampling.categorical(keys, logits.astype(jnp.float32), temperature=0.7)
    chex.assert_trees_all_equal(low, high)


def test_greedy_takes_the_likeliest_token_whatever_the_key(key):
    logits = random_logits(32)
    tokens, logprobs = sampling.greedy(jax.random.split(key, 32), logits)
    np.testing.assert_array_equal(tokens, np.argmax(logits, axis=1))
    assert tokens.dtype == jnp.int32
    expected = [max(reference.log_softmax(row.tolist(), 1.0)) for row in np.asarray(logits)]
    np.testing.assert_allclose(logprobs, expected, rtol=1e-5)
    chex.assert_trees_all_equal(tokens, sampling.greedy(jax.random.split(key, 32)[::-1], logits)[0])


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
