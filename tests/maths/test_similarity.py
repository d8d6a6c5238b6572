"""Similarity of the code of two trajectories."""

import collections
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import similarity


def encoded(texts: list[str], width: int = 64, junk: int = 0):
    symbols = np.full((len(texts), width), junk, np.int32)
    for row, text in enumerate(texts):
        symbols[row, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    return jnp.asarray(symbols), jnp.array([len(text) for text in texts], jnp.int32)


embed = jax.jit(similarity.hashed_ngrams, static_argnames=("sizes", "dimensions"))


def cosines(texts: list[str], **options) -> np.ndarray:
    return np.asarray(similarity.cosine_similarity(embed(*encoded(texts), **options)))


def exact_cosine(a: str, b: str, sizes=(2, 3)) -> float:
    """Cosine of the counts of n-grams, without hashing."""
    first, second = (
        collections.Counter(t[i : i + n] for n in sizes for i in range(len(t) - n + 1))
        for t in (a, b)
    )
    dot = sum(count * second[gram] for gram, count in first.items())
    return dot / math.sqrt(sum(c * c for c in first.values()) * sum(c * c for c in second.values()))


def test_hashed_ngrams_are_unit_vectors_and_equal_for_equal_code():
    vectors = embed(*encoded(["print(1+2)", "x = 5", "print(1+2)"]))
    np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    chex.assert_trees_all_equal(vectors[0], vectors[2])
    assert float(jnp.max(jnp.abs(vectors[0] - vectors[1]))) > 0.1


def test_similarity_of_code_with_itself_is_one():
    result = cosines(["print(1+2)", "for i in range(9): print(i*i)"])
    np.testing.assert_allclose(np.diag(result), 1.0, rtol=1e-6)


def test_hashed_ngrams_without_any_ngram_are_zero_and_similar_to_nothing():
    # An empty text, and one shorter than the smallest n-gram.
    vectors = embed(*encoded(["", "x", "print(1)"]))
    chex.assert_trees_all_equal(vectors[:2], jnp.zeros_like(vectors[:2]))
    result = similarity.cosine_similarity(vectors)
    chex.assert_trees_all_equal(result[:2], jnp.zeros((2, 3)))
    assert np.all(np.isfinite(result))


def test_hashed_ngrams_longer_than_the_array_are_skipped():
    vectors = embed(*encoded(["ab"], width=2), sizes=(2, 3))
    np.testing.assert_allclose(jnp.max(vectors), 1.0)
    assert int(jnp.sum(vectors > 0)) == 1


@pytest.mark.parametrize("junk", [0, 65, 255])
def test_hashed_ngrams_with_other_or_more_padding_are_unchanged(junk):
    texts = ["print(1+2)", "ab", "x=1"]
    expected = embed(*encoded(texts, width=16))
    padded = embed(*encoded(texts, width=64, junk=junk))
    chex.assert_trees_all_equal(padded, expected)


def test_similarity_of_code_in_another_order_is_below_one():
    result = cosines(["abcdefgh", "hgfedcba"])
    assert result[0, 1] < 0.2


def test_similarity_of_hashed_ngrams_is_that_of_exact_ngrams_up_to_collisions():
    texts = [
        "print(12*7)",
        "print(12+7)",
        "print(sum([3, 5, 8]))",
        "x = 3\nprint(x ** 2)",
        "import math\nmath.sqrt(2)",
    ]
    exact = [[exact_cosine(a, b) for b in texts] for a in texts]
    # Some 100 n-grams in 4096 buckets: a collision is rare and moves a cosine by a few hundredths.
    np.testing.assert_allclose(cosines(texts, dimensions=4096), exact, atol=0.08)
    # With the default number of buckets the order of neighbors stays.
    default = cosines(texts)[0]
    assert default[1] > default[2] > default[4]


@pytest.mark.slow
def test_hashed_ngrams_under_jit_equal_eager():
    arguments = encoded(["print(1+2)", "x = 5"])
    eager = similarity.hashed_ngrams(*arguments)
    chex.assert_trees_all_close(embed(*arguments), eager, rtol=1e-6)


def test_cosine_similarity_matches_the_float64_formula():
    vectors = np.random.default_rng(0).normal(size=(6, 9))
    vectors[2] = 0.0
    norms = np.linalg.norm(vectors, axis=1)
    expected = vectors @ vectors.T / np.where(np.outer(norms, norms) > 0, np.outer(norms, norms), 1)
    result = similarity.cosine_similarity(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    chex.assert_trees_all_close(result, result.T, atol=1e-7)


def test_cosine_similarity_with_a_zero_vector_has_finite_gradient():
    gradient = jax.grad(lambda e: jnp.sum(similarity.cosine_similarity(e)))(jnp.array([[1.0, 2.0]]))
    assert np.all(np.isfinite(gradient))


def test_mean_pooled_states_match_a_loop_and_ignore_what_is_not_masked():
    # Two trajectories in a row, one without a masked token, NaN everywhere else.
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 8, 4)).astype(np.float32)
    ids = np.array([[0, 0, 0, 2, 2, 2, -1, -1], [1] * 8, [3, 3, 3, 3, -1, -1, -1, -1]])
    mask = rng.random((3, 8)) < 0.6
    mask[1] = False
    expected = np.zeros((5, 4))
    for trajectory in range(5):
        states = [hidden[b, t] for b, t in np.argwhere(mask & (ids == trajectory))]
        if states:
            expected[trajectory] = np.mean(np.asarray(states, np.float64), axis=0)
    hidden[~(mask & (ids >= 0))] = np.nan

    def pool(hidden):
        return similarity.mean_pooled(hidden, jnp.asarray(mask), jnp.asarray(ids), trajectories=5)

    for call in (pool, jax.jit(pool)):
        np.testing.assert_allclose(call(jnp.asarray(hidden)), expected, rtol=1e-6, atol=1e-7)
    assert not np.any(expected[[1, 4]])
    gradient = jax.grad(lambda h: jnp.sum(jnp.square(pool(h))))(jnp.nan_to_num(hidden))
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(gradient))


def test_mean_pooled_bfloat16_states_are_summed_in_float32():
    # In bfloat16 a sum of ones stops growing at 256.
    hidden = jnp.ones((1, 600, 2), jnp.bfloat16).at[0, 0].set(301.0)
    out = similarity.mean_pooled(
        hidden, jnp.ones((1, 600), bool), jnp.zeros((1, 600), jnp.int32), trajectories=1
    )
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, (float(hidden[0, 0, 0]) + 599.0) / 600.0, rtol=1e-6)
