"""Token log-probabilities and entropies."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import logprobs
from tests import reference
from tests.rounding import assert_same_sums

VOCABULARY = 7


def random_inputs(seed: int = 0, scale: float = 3.0):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(2, 6, VOCABULARY))).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(rng.integers(0, VOCABULARY, (2, 6)))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_token_logprobs_match_a_float64_loop(strict_rank, temperature, compiled):
    logits, tokens = random_inputs()
    call = functools.partial(logprobs.token_logprobs, temperature=temperature)
    out = (jax.jit(call) if compiled else call)(logits, tokens)
    expected = reference.token_logprobs(np.asarray(logits), np.asarray(tokens), temperature)
    # float32 against float64, log-probs of order ten.
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6)
    chex.assert_trees_all_equal(out[:, 0], jnp.zeros(2))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_token_entropies_match_a_float64_loop(strict_rank, temperature, compiled):
    logits, _ = random_inputs()
    call = functools.partial(logprobs.token_entropies, temperature=temperature)
    out = (jax.jit(call) if compiled else call)(logits)
    expected = reference.token_entropies(np.asarray(logits), temperature)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6)


def test_token_logprob_depends_on_the_logits_one_before_and_on_no_others():
    logits, tokens = random_inputs()
    jacobian = jax.jit(jax.jacobian(lambda x: logprobs.token_logprobs(x, tokens[:1])))(logits[:1])
    touched = np.any(np.asarray(jacobian)[0, :, 0] != 0, axis=-1)  # [T out, T in]
    np.testing.assert_array_equal(touched, np.eye(6, k=-1, dtype=bool))


def test_token_logprobs_differentiate_to_one_hot_minus_softmax_over_temperature():
    logits, tokens = random_inputs()
    gradient = jax.jit(
        jax.grad(lambda x: jnp.sum(logprobs.token_logprobs(x, tokens, temperature=0.5)))
    )(logits)
    scaled = np.asarray(logits, np.float64) / 0.5
    softmax = np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)
    expected = (np.eye(VOCABULARY)[np.asarray(tokens)[:, 1:]] - softmax[:, :-1]) / 0.5
    assert_same_sums(gradient[:, :-1], expected, depth=VOCABULARY + 3)
    chex.assert_trees_all_equal(gradient[:, -1], jnp.zeros((2, VOCABULARY)))


def test_token_logprobs_of_shifted_or_huge_logits_stay_finite_and_equal():
    logits, tokens = random_inputs()
    before = logprobs.token_logprobs(logits, tokens)
    after = logprobs.token_logprobs(logits + 1000.0, tokens)
    # Adding 1000 leaves the logits about 3e-5 of resolution.
    chex.assert_trees_all_close(after, before, atol=2e-4)
    assert np.all(np.isfinite(logprobs.token_logprobs(1e4 * logits, tokens)))


def test_token_logprobs_of_bfloat16_logits_are_summed_in_float32():
    logits, tokens = random_inputs()
    out = logprobs.token_logprobs(logits.astype(jnp.bfloat16), tokens)
    assert out.dtype == jnp.float32
    rounded = np.asarray(logits.astype(jnp.bfloat16), np.float64)
    expected = reference.token_logprobs(rounded, np.asarray(tokens), 1.0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6)


def test_logprobs_of_a_row_of_one_token_are_zero():
    logits, tokens = random_inputs()
    chex.assert_trees_all_equal(
        logprobs.token_logprobs(logits[:, :1], tokens[:, :1]), jnp.zeros((2, 1))
    )
    chex.assert_trees_all_equal(logprobs.token_entropies(logits[:, :1]), jnp.zeros((2, 1)))


def test_logprobs_with_masked_vocabulary_are_those_of_the_smaller_vocabulary():
    logits, tokens = random_inputs()
    tokens = jnp.minimum(tokens, 4)
    masked = logits.at[..., 5:].set(-jnp.inf)
    chex.assert_trees_all_close(
        logprobs.token_logprobs(masked, tokens),
        logprobs.token_logprobs(logits[..., :5], tokens),
        rtol=1e-6,
    )
    chex.assert_trees_all_close(
        logprobs.token_entropies(masked), logprobs.token_entropies(logits[..., :5]), rtol=1e-6
    )


def test_logprobs_with_masked_vocabulary_have_the_gradient_of_the_smaller_one():
    # 0 · log 0: a plain p · log p has a NaN gradient here.
    logits, tokens = random_inputs()
    tokens = jnp.minimum(tokens, 4)

    def total(x):
        return jnp.sum(logprobs.token_entropies(x)) + jnp.sum(logprobs.token_logprobs(x, tokens))

    gradient_of = jax.jit(jax.grad(total))
    gradient = gradient_of(logits.at[..., 5:].set(-jnp.inf))
    chex.assert_trees_all_close(gradient[..., :5], gradient_of(logits[..., :5]), atol=1e-6)
    chex.assert_trees_all_equal(gradient[..., 5:], jnp.zeros((2, 6, 2)))


def test_token_entropy_of_uniform_and_of_certain_predictions():
    logits = jnp.zeros((1, 3, VOCABULARY)).at[0, 1, 2].set(200.0)
    out = logprobs.token_entropies(logits)
    np.testing.assert_allclose(out, [[0.0, math.log(VOCABULARY), 0.0]], rtol=1e-6, atol=1e-7)


WIDTH = 5


def plain_statistics(hidden, tokens, head, *, temperature):
    logits = head(hidden)
    return logprobs.TokenStatistics(
        logprobs.token_logprobs(logits, tokens, temperature=temperature),
        logprobs.token_entropies(logits, temperature=temperature),
    )


def head_inputs(length: int):
    rng = np.random.default_rng(length)
    hidden = jnp.asarray(rng.normal(size=(2, length, WIDTH)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(WIDTH, VOCABULARY)), jnp.float32)
    return hidden, head, jnp.asarray(rng.integers(0, VOCABULARY, (2, length)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "length, chunk", [(13, 1), (13, 4), (13, 5), (13, 12), (13, 64), (2, 3), (1, 2)]
)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_statistics_equal_the_plain_ones_in_value_and_gradient(length, chunk, temperature):
    # Chunks that do and do not divide the 12 predicted positions; rows of two tokens and of one.
    hidden, head, tokens = head_inputs(length)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, length)), jnp.float32)

    def total(statistics):
        def call(hidden, head):
            out = statistics(hidden, tokens, lambda h: h @ head, temperature=temperature)
            return jnp.sum(weights[0] * out.logprobs + weights[1] * out.entropies), out

        return jax.jit(jax.value_and_grad(call, argnums=(0, 1), has_aux=True))(hidden, head)

    chunked = total(functools.partial(logprobs.chunked_statistics, chunk=chunk))
    depth = 3 * (WIDTH + VOCABULARY) + 4 * length  # there and back, and over the tokens
    assert_same_sums(chunked, total(plain_statistics), depth=depth)


def test_extras_are_those_of_a_float64_loop_and_equal_in_chunks():
    hidden, head, tokens = head_inputs(8)
    ids = jnp.asarray(np.random.default_rng(4).integers(0, VOCABULARY, (2, 8, 3)))
    options = {"temperature": 0.7, "needs": tuple(logprobs.EXTRAS), "candidates": ids}

    def total(statistics):
        def call(hidden, head):
            extras = statistics(hidden, tokens, lambda h: h @ head, **options).extras
            return sum(jnp.sum(jnp.sin(x)) for x in extras.values()), extras

        return jax.jit(jax.value_and_grad(call, argnums=(0, 1), has_aux=True))(hidden, head)

    (plain, extras), gradient = total(logprobs.token_statistics)
    (chunked, _), other = total(functools.partial(logprobs.chunked_statistics, chunk=3))
    np.testing.assert_allclose(chunked, plain, rtol=1e-5)
    chex.assert_trees_all_close(other, gradient, rtol=1e-4, atol=1e-5)
    states = np.asarray(hidden, np.float64)
    for b, t in np.ndindex(2, 8):
        if t == 0:
            assert not any(np.any(x[b, 0]) for x in extras.values())
            continue
        log_p = reference.log_softmax(states[b, t - 1] @ np.asarray(head, np.float64), 0.7)
        p = np.exp(log_p)
        expected = [np.sum(p**2), np.sum(p**3)]
        np.testing.assert_allclose(extras["collisions"][b, t], expected, rtol=1e-5)
        expected = [log_p[i] for i in ids[b, t]]
        np.testing.assert_allclose(extras["candidate_logprobs"][b, t], expected, rtol=1e-5)
        expected = np.sum(states[b, t - 1] ** 2)
        np.testing.assert_allclose(extras["state_norms"][b, t], expected, rtol=1e-5)


def test_unknown_extra_and_missing_candidates_are_told():
    hidden, head, tokens = head_inputs(3)
    for needs, message in (
        (["logits"], "needs may name .*got logits"),
        (["candidate_logprobs"], "needs the candid"),
    ):
        with pytest.raises(ValueError, match=message):
            logprobs.token_statistics(hidden, tokens, lambda h: h @ head, needs=needs)


def test_chunked_statistics_give_no_gradient_to_states_that_predict_nothing_weighed():
    # Exactly zero wherever the next token is not trained.
    hidden, head, tokens = head_inputs(13)
    mask = jnp.asarray(np.random.default_rng(2).random((2, 13)) < 0.5)

    def total(hidden):
        out = logprobs.chunked_statistics(hidden, tokens, lambda h: h @ head, chunk=5)
        return jnp.sum(jnp.where(mask, out.logprobs, 0.0))

    touched = np.any(np.asarray(jax.jit(jax.grad(total))(hidden)) != 0, axis=-1)
    np.testing.assert_array_equal(touched[:, :-1], np.asarray(mask)[:, 1:])
    assert not np.any(touched[:, -1])


@pytest.mark.slow
def test_gradient_of_chunked_statistics_takes_an_eighth_of_the_memory_at_most():
    # Compiled, not run: [4, 2048] tokens and 152,000 words.
    shape = jax.ShapeDtypeStruct
    arguments = (
        shape((4, 2048, 64), jnp.float32),
        shape((64, 152_000), jnp.float32),
        shape((4, 2048), jnp.int32),
    )

    def temporary(statistics) -> int:
        def total(hidden, head, tokens):
            out = statistics(hidden, tokens, lambda h: h @ head, temperature=1.0)
            return jnp.sum(out.logprobs) + jnp.sum(out.entropies)

        compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = temporary(plain_statistics)
    assert plain >= 4 * 2048 * 152_000 * 4  # it holds the logits at least once
    assert temporary(logprobs.chunked_statistics) <= plain / 8
