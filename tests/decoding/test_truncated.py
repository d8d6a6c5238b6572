"""Draws from the likeliest tokens: top-k, top-p and min-p."""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from gtpo_jax.decoding import sampling
from tests import reference
from tests.decoding.test_sampling import (
    DRAWS,
    STANDARD_ERRORS,
    check_draw,
    random_logits,
    reference_kept,
    share_of,
)

pytestmark = pytest.mark.slow

jitted_truncated = jax.jit(sampling.truncated, static_argnames="top_k")

jitted_categorical = jax.jit(sampling.categorical)


@pytest.mark.parametrize(
    "filters",
    [{"top_k": 5}, {"top_p": 0.93}, {"min_p": 0.05}, {"top_k": 6, "top_p": 0.95, "min_p": 0.02}],
    ids=str,
)
def test_truncated_frequencies_are_within_standard_errors(filters, key):
    row = random_logits(1)[0].tolist()
    draw = jitted_truncated(
        jax.random.split(key, DRAWS),
        jnp.tile(jnp.array(row), (DRAWS, 1)),
        temperature=0.8,
        **filters,
    )
    check_draw(draw, row, temperature=0.8, **filters)
    kept = reference_kept(row, temperature=0.8, **filters)
    assert 3 <= len(kept) < 8
    p = np.zeros(8)
    p[kept] = np.exp(np.array(reference.log_softmax(row, 0.8))[kept])
    p /= p.sum()
    error = np.abs(share_of(draw.tokens, 8) - p)
    assert np.all(error <= STANDARD_ERRORS * np.sqrt(p * (1 - p) / DRAWS))


SHUFFLED = [0.1, 0.4, 0.2, 0.3]

EQUAL = [0.25] * 4


@pytest.mark.parametrize(
    ("p", "filters", "kept"),
    [
        (SHUFFLED, {}, {0, 1, 2, 3}),
        (SHUFFLED, {"top_k": 1}, {1}),
        (SHUFFLED, {"top_k": 2}, {1, 3}),
        (SHUFFLED, {"top_k": 4}, {0, 1, 2, 3}),
        (SHUFFLED, {"top_k": 100}, {0, 1, 2, 3}),
        (SHUFFLED, {"top_p": 0.0}, {1}),
        (SHUFFLED, {"top_p": 0.39}, {1}),
        (SHUFFLED, {"top_p": 0.41}, {1, 3}),
        (SHUFFLED, {"top_p": 0.71}, {1, 2, 3}),
        (SHUFFLED, {"top_p": 0.91}, {0, 1, 2, 3}),
        (SHUFFLED, {"min_p": 0.24}, {0, 1, 2, 3}),
        (SHUFFLED, {"min_p": 0.26}, {1, 2, 3}),
        (SHUFFLED, {"min_p": 0.76}, {1}),
        (SHUFFLED, {"min_p": 1.0}, {1}),
        # Of the three likeliest two hold 7/9; of all four they hold 7/10.
        (SHUFFLED, {"top_k": 3, "top_p": 0.75}, {1, 3}),
        (SHUFFLED, {"top_p": 0.75}, {1, 2, 3}),
        # The nucleus is taken before the unlikely are dropped, or two would hold 7/9.
        (SHUFFLED, {"top_p": 0.75, "min_p": 0.3}, {1, 2, 3}),
        # At half the temperature two hold 25/30.
        (SHUFFLED, {"top_p": 0.8, "temperature": 0.5}, {1, 3}),
        (SHUFFLED, {"top_p": 0.8}, {1, 2, 3}),
        (EQUAL, {"top_k": 2}, {0, 1}),
        (EQUAL, {"top_p": 0.5}, {0, 1}),
        (EQUAL, {"top_p": 0.51}, {0, 1, 2}),
        (EQUAL, {"top_p": 0.0}, {0}),
        (EQUAL, {"top_k": 3, "top_p": 0.5}, {0, 1}),
        (EQUAL, {"min_p": 1.0}, {0, 1, 2, 3}),
        ([0.2, 0.4, 0.2, 0.2], {"top_p": 0.7}, {0, 1, 2}),
        ([0.2, 0.4, 0.2, 0.2], {"top_k": 2}, {0, 1}),
        ([0.0, 1.0, 0.0, 0.0], {"top_k": 2, "top_p": 0.9}, {1}),
        ([0.0, 0.5, 0.0, 0.5], {"top_k": 3}, {1, 3}),
        ([0.0, 0.5, 0.0, 0.5], {"top_p": 0.9}, {1, 3}),
        ([0.0, 0.5, 0.0, 0.5], {"min_p": 0.0}, {1, 3}),
    ],
)
def test_truncated_keeps_exactly_these_tokens(p, filters, kept, key):
    with np.errstate(divide="ignore"):
        row = np.log(p).astype(np.float32)
    draw = jitted_truncated(jax.random.split(key, 1000), np.tile(row, (1000, 1)), **filters)
    assert set(np.asarray(draw.tokens).tolist()) == kept
    assert set(reference_kept(row.tolist(), **filters)) == kept
    check_draw(draw, row.tolist(), **filters)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    scale=strategies.sampled_from([0.0, 0.5, 3.0, 30.0]),
    step=strategies.sampled_from([0.0, 0.5]),  # logits on a grid, so that many are equal
    masked=strategies.integers(0, 11),
    temperature=strategies.floats(0.25, 4.0),
    top_k=strategies.sampled_from([None, 1, 3, 12, 50]),
    # No fraction of few equal tokens, so that no set is a matter of rounding.
    top_p=strategies.sampled_from([0.0, 0.2718, 0.5772, 0.9142, 0.9987, 1.0]),
    min_p=strategies.sampled_from([0.0, 0.01234, 0.3141, 0.8765]),
)
def test_truncated_agrees_with_filters_on_lists(
    seed, scale, step, masked, temperature, top_k, top_p, min_p
):
    rng = np.random.default_rng(seed)
    row = scale * rng.normal(size=12)
    row = np.round(row / step) * step if step else row
    row[rng.permutation(12)[:masked]] = -np.inf
    row = row.astype(np.float32)
    temperature = float(np.float32(temperature))
    filters = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    keys, logits = jax.random.split(jax.random.key(seed), 64), np.tile(row, (64, 1))
    draw = jitted_truncated(keys, logits, **filters)
    check_draw(draw, row.tolist(), **filters)
    if top_k in (None, 12, 50):
        # The same noise: the token of the plain draw, if it is kept.
        plain = np.asarray(jitted_categorical(keys, logits, temperature=temperature).tokens)
        same = np.isin(plain, reference_kept(row.tolist(), **filters))
        np.testing.assert_array_equal(np.asarray(draw.tokens)[same], plain[same])


@pytest.mark.parametrize("filters", [{"top_p": 0.95}, {"top_k": 5, "min_p": 0.2}], ids=str)
def test_number_in_the_program_does_what_a_traced_one_does(filters, key):
    keys, logits = jax.random.split(key, 200), random_logits(200)
    static = jax.jit(functools.partial(sampling.truncated, **filters))(keys, logits)
    traced = jitted_truncated(keys, logits, **filters)
    chex.assert_trees_all_equal(static.tokens, traced.tokens)
    chex.assert_trees_all_close(static, traced, rtol=1e-6, atol=1e-6)
    assert float(jnp.max(static.sampled_logprobs - static.logprobs)) > 0.01


def test_nucleus_of_everything_holds_what_adds_nothing_to_a_sum():
    distances = jnp.array([[0.0, -30.0, -200.0, -jnp.inf], [-jnp.inf, 0.0, -1.0, -90.0]])
    assert sampling._nucleus(distances, jnp.float32(1.0)).all()
    assert sampling._nucleus(distances, jnp.float32(0.999)).sum(axis=1).tolist() == [1, 2]


@pytest.mark.parametrize("filters", [{}, {"top_k": 8}, {"top_k": 9, "top_p": 1.0}], ids=str)
def test_truncated_that_cuts_nothing_is_categorical(filters, key):
    keys, logits = jax.random.split(key, 200), random_logits(200)
    plain = jax.jit(functools.partial(sampling.categorical, temperature=0.8))(keys, logits)
    draw = jax.jit(functools.partial(sampling.truncated, temperature=0.8, **filters))(keys, logits)
    chex.assert_trees_all_equal(draw.tokens, plain.tokens)
    chex.assert_trees_all_close(draw, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "filters", [{"top_k": 4}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 6, "top_p": 0.9}], ids=str
)
def test_truncated_of_permuted_logits_keeps_the_permuted_tokens(filters, key):
    keys, row = jax.random.split(key, 500), random_logits(1, 16, seed=3)[0]
    order = np.random.default_rng(1).permutation(16)
    call = jax.jit(functools.partial(sampling.truncated, temperature=2.0, **filters))
    draw = call(keys, jnp.tile(row, (500, 1)))
    permuted = call(keys, jnp.tile(row[order], (500, 1)))

    def found(draw, names) -> dict[int, float]:
        pairs = zip(draw.tokens.tolist(), draw.sampled_logprobs.tolist(), strict=True)
        return {int(names[token]): logprob for token, logprob in pairs}

    before, after = found(draw, np.arange(16)), found(permuted, order)
    assert 1 < len(before) < 16
    assert before.keys() == after.keys()
    np.testing.assert_allclose([before[i] for i in after], list(after.values()), atol=1e-5)
    if "top_k" in filters:  # drawn by rank: not only the set is permuted, the draw is
        np.testing.assert_array_equal(order[permuted.tokens], draw.tokens)
