"""Rotary positions: angles, precision, and the stretched frequencies of published models."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import rope
from models.config import RopeScaling

PLAIN = RopeScaling()


def rotate(x, positions, theta=1e4):
    return rope.rotate(x, rope.table(positions, head_dim=x.shape[-1], theta=theta, scaling=PLAIN))


def test_rotary_scores_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 1, 8)).astype(np.float32)
    turn = jax.jit(rotate)

    def score(i, j):
        rotated = [turn(x, np.array([[p]])) for x, p in ((q, i), (k, j))]
        return float(np.sum(np.asarray(rotated[0]) * np.asarray(rotated[1])))

    assert score(3, 1) == pytest.approx(score(1003, 1001), abs=1e-3)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def test_rotary_angles_stay_exact_in_bfloat16():
    # Rounded to bfloat16, positions 257 and 258 would be one and the same.
    x = jnp.ones((1, 2, 1, 8), jnp.bfloat16)
    rotated = rotate(x, np.array([[257, 258]]))
    assert rotated.dtype == jnp.bfloat16
    assert np.abs(np.asarray(rotated[0, 0] - rotated[0, 1], np.float32)).max() > 0.1


def test_feature_turns_with_that_of_the_other_half():
    x = jnp.zeros((1, 1, 1, 6)).at[..., 1].set(1.0)
    rotated = np.asarray(rotate(x, np.array([[2]]), theta=1000.0))[0, 0, 0]
    angle = 2 * 1000 ** (-1 / 3)
    np.testing.assert_allclose(rotated, [0, math.cos(angle), 0, 0, math.sin(angle), 0], atol=1e-6)


def test_linear_scaling_divides_every_frequency():
    every = functools.partial(rope.frequencies, 16, theta=1e4)
    stretched = every(scaling=RopeScaling(kind="linear", factor=8.0))
    np.testing.assert_allclose(stretched * 8, every(scaling=PLAIN), rtol=1e-6)


def test_llama3_scaling_keeps_fast_frequencies_and_divides_slow_ones():
    # Llama 3.1: head_dim 128, theta 500,000, factor 8. In 8,192 positions pair 28 makes 4.2 turns
    # and pair 35 just less than one: six pairs lie between the bounds, 4 and 1.
    scaling = RopeScaling(kind="llama3", factor=8.0)
    plain = np.asarray(rope.frequencies(128, theta=5e5, scaling=PLAIN), np.float64)
    stretched = np.asarray(rope.frequencies(128, theta=5e5, scaling=scaling), np.float64)
    turns = 8192 * plain / (2 * math.pi)
    ratio = stretched / plain
    np.testing.assert_allclose(ratio[turns > 4], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[turns < 1], 1 / 8, rtol=1e-6)
    between = (turns > 1) & (turns < 4)
    kept = (turns[between] - 1) / 3
    np.testing.assert_allclose(ratio[between], kept + (1 - kept) / 8, rtol=1e-5)
    assert np.flatnonzero(between).tolist() == [29, 30, 31, 32, 33, 34]


def test_yarn_of_qwen_blends_between_the_pairs_of_its_bounds():
    # Qwen2.5: head_dim 128, theta 1e6, factor 4 over 32,768 positions. In these, pair 23.6 turns
    # 32 times and pair 39.7 once; rounded outwards, 23 and 40.
    scaling = RopeScaling(kind="yarn", factor=4.0, original_positions=32_768)
    plain = np.asarray(rope.frequencies(128, theta=1e6, scaling=PLAIN), np.float64)
    ratio = np.asarray(rope.frequencies(128, theta=1e6, scaling=scaling), np.float64) / plain
    expected = [
        1.0 if i <= 23 else 0.25 if i >= 40 else 1 - 0.75 * (i - 23) / 17 for i in range(64)
    ]
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)
    table = rope.table(np.array([[0]]), head_dim=128, theta=1e6, scaling=scaling)
    np.testing.assert_allclose(table.cos, 1 + 0.1 * math.log(4), rtol=1e-6)
    given = RopeScaling(kind="yarn", factor=4.0, attention_factor=1.5)
    assert rope.amplitude(given) == 1.5


def test_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match=r"'longrope' is unknown; one of none, linear"):
        rope.frequencies(8, theta=1e4, scaling=RopeScaling(kind="longrope"))
