"""Choosing the next token."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gtpo_jax.decoding import sampling
from tests import reference

pytestmark = pytest.mark.slow

DRAWS = 20_000
STANDARD_ERRORS = 4.5  # chance of one false alarm in 50 comparisons: below 1 in 2000

SAMPLERS = {
    "categorical": functools.partial(sampling.categorical, temperature=0.7),
    "greedy": sampling.greedy,
    "top_k": functools.partial(sampling.truncated, temperature=0.7, top_k=4),
    "top_p": functools.partial(sampling.truncated, temperature=0.7, top_p=0.8),
    "all filters": functools.partial(
        sampling.truncated, temperature=0.7, top_k=6, top_p=0.9, min_p=0.1
    ),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=list(SAMPLERS))


def random_logits(rows: int, width: int = 8, seed: int = 0) -> jax.Array:
    return jnp.asarray(2.0 * np.random.default_rng(seed).normal(size=(rows, width)), jnp.float32)


def reference_kept(logits, *, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0) -> list[int]:
    """Ids that the three filters keep, one after the other, on lists in float64."""
    p = [math.exp(x) for x in reference.log_softmax(logits, temperature)]
    kept = sorted((i for i in range(len(p)) if p[i] > 0), key=lambda i: (-p[i], i))[:top_k]
    if top_p < 1:
        total = math.fsum(p[i] for i in kept)
        sums = [math.fsum(p[i] for i in kept[:n]) / total for n in range(1, len(kept) + 1)]
        kept = kept[: 1 + sum(mass < top_p for mass in sums)]
    return [i for i in kept if p[i] >= min_p * max(p)]


def reference_entropy(logits, temperature) -> float:
    logs = reference.log_softmax(logits, temperature)
    return -math.fsum(math.exp(x) * x for x in logs if x > -math.inf)


def check_draw(draw, row, *, temperature=1.0, **filters) -> None:
    """All that a draw says, of rows with the same logits `row`."""
    chex.assert_tree_all_finite(draw)
    logs = reference.log_softmax(row, temperature)
    kept = reference_kept(row, temperature=temperature, **filters)
    log_mass = math.log(math.fsum(math.exp(logs[i]) for i in kept))
    tokens = np.asarray(draw.tokens)
    assert set(tokens.tolist()) <= set(kept)
    logprobs = np.array(logs)[tokens]
    np.testing.assert_allclose(draw.logprobs, logprobs, rtol=1e-5, atol=2e-6)
    # The mass of what was kept: a token more or less shows, drawn or not.
    np.testing.assert_allclose(draw.sampled_logprobs, logprobs - log_mass, rtol=1e-5, atol=4e-6)
    assert np.all(draw.sampled_logprobs >= np.asarray(draw.logprobs) - 1e-6)
    entropy = reference_entropy(row, temperature)
    np.testing.assert_allclose(draw.entropies, entropy, rtol=1e-5, atol=2e-6)


def check_types(draw) -> None:
    floats = (draw.logprobs, draw.sampled_logprobs, draw.entropies)
    chex.assert_type([draw.tokens, *floats], [jnp.int32, *[jnp.float32] * 3])
    chex.assert_equal_shape([draw.tokens, *floats])


def share_of(tokens, width: int) -> np.ndarray:
    return np.bincount(np.asarray(tokens), minlength=width) / len(tokens)


@every_sampler
def test_masked_vocabulary_is_never_sampled(sampler, key):
    # The padded rows of the embedding would win every draw.
    logits = jnp.broadcast_to(random_logits(1).at[:, 5:].add(50.0), (2000, 8))
    keys = jax.random.split(key, 2000)
    draw = jax.jit(sampler)(keys, sampling.mask_vocabulary(logits, 5))
    assert int(draw.tokens.min()) >= 0 and int(draw.tokens.max()) < 5
    # Probabilities are those over what can be drawn, as if the other ids were not there.
    narrow = jax.jit(sampler)(keys, logits[:, :5])
    for token in range(5):
        for field in ("logprobs", "sampled_logprobs"):
            values = [getattr(d, field)[d.tokens == token] for d in (draw, narrow)]
            np.testing.assert_allclose(*[np.unique(x)[:1] for x in values], rtol=1e-5)
    np.testing.assert_allclose(draw.entropies, narrow.entropies, rtol=1e-5)
    chex.assert_tree_all_finite(draw)


def test_mask_vocabulary_of_the_full_width_changes_nothing():
    logits = random_logits(3)
    chex.assert_trees_all_equal(sampling.mask_vocabulary(logits, 8), logits)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_categorical_frequencies_are_within_standard_errors(temperature, key):
    logits = random_logits(1)[0]
    draw = jax.jit(functools.partial(sampling.categorical, temperature=temperature))(
        jax.random.split(key, DRAWS), jnp.broadcast_to(logits, (DRAWS, 8))
    )
    p = np.exp(reference.log_softmax(logits.tolist(), temperature))
    error = np.abs(share_of(draw.tokens, 8) - p)
    assert np.all(error <= STANDARD_ERRORS * np.sqrt(p * (1 - p) / DRAWS))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_categorical_says_what_a_learner_evaluates(temperature, compiled, key):
    # Log-softmax at the temperature of the draw, in float32.
    logits = random_logits(64)
    call = functools.partial(sampling.categorical, temperature=temperature)
    draw = (jax.jit(call) if compiled else call)(jax.random.split(key, 64), logits)
    check_types(draw)
    assert draw.tokens.shape == (64,)
    chex.assert_trees_all_equal(draw.logprobs, draw.sampled_logprobs)
    for b, row in enumerate(logits.tolist()):
        check_draw(jax.tree.map(lambda x, b=b: x[b : b + 1], draw), row, temperature=temperature)


@every_sampler
def test_row_depends_on_its_own_key_and_logits_only(sampler, key):
    keys, logits = jax.random.split(key, 16), random_logits(16)
    call = jax.jit(sampler)
    draw = call(keys, logits)
    for order in (np.random.default_rng(0).permutation(16), np.arange(16)[3:8], np.array([5])):
        some = call(keys[order], logits[order])
        chex.assert_trees_all_equal(some.tokens, draw.tokens[order])
        expected = jax.tree.map(lambda x, order=order: x[order], draw)
        chex.assert_trees_all_close(some, expected, rtol=1e-6, atol=1e-7)


@every_sampler
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_rows_shared_by_devices_draw_the_same(sampler, axis_type, key):
    keys, logits = jax.random.split(key, 16), random_logits(16)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        placed = jax.device_put(keys, rows), jax.device_put(logits, rows)
        draw = jax.jit(sampler)(*placed)
    assert draw.tokens.sharding.is_equivalent_to(rows, 1)
    alone = jax.jit(sampler)(keys, logits)
    chex.assert_trees_all_equal(jax.device_get(draw.tokens), jax.device_get(alone.tokens))
    chex.assert_trees_all_close(jax.device_get(draw), jax.device_get(alone), rtol=1e-6, atol=1e-7)


@every_sampler
def test_jitted_sampler_is_the_eager_one(sampler, key):
    keys, logits = jax.random.split(key, 32), random_logits(32).at[:, 2].set(-jnp.inf)
    eager, jitted = sampler(keys, logits), jax.jit(sampler)(keys, logits)
    chex.assert_trees_all_equal(eager.tokens, jitted.tokens)
    chex.assert_trees_all_close(eager, jitted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "greedy"])
def test_one_key_per_row_draws_rows_independently(name, key):
    # With a shared key all rows of equal logits would draw the same token.
    draw = SAMPLERS[name](jax.random.split(key, 64), jnp.zeros((64, 8)))
    assert len(set(np.asarray(draw.tokens).tolist())) >= 4


@every_sampler
def test_bfloat16_logits_are_computed_in_float32(sampler, key):
    logits = random_logits(32, 64).astype(jnp.bfloat16)
    keys = jax.random.split(key, 32)
    low, high = sampler(keys, logits), sampler(keys, logits.astype(jnp.float32))
    chex.assert_trees_all_equal(low, high)
    check_types(low)


@every_sampler
def test_common_offset_of_the_logits_costs_no_digits(sampler, key):
    logits = jnp.round(random_logits(64) * 64) / 64  # exact also beside the offset
    keys = jax.random.split(key, 64)
    low, high = jax.jit(sampler)(keys, logits), jax.jit(sampler)(keys, logits + 8192.0)
    chex.assert_trees_all_equal(low.tokens, high.tokens)
    chex.assert_trees_all_close(low, high, rtol=1e-6, atol=1e-6)


@every_sampler
def test_large_vocabulary_of_equal_logits_is_uniform(sampler, key):
    # Sums of very many equal terms, and ties wherever a set ends.
    size = 50_000
    draw = jax.jit(sampler)(jax.random.split(key, 4), jnp.zeros((4, size), jnp.bfloat16))
    np.testing.assert_allclose(draw.logprobs, -math.log(size), rtol=1e-6)
    np.testing.assert_allclose(draw.entropies, math.log(size), rtol=1e-6)
    kept = {"top_k": 4, "top_p": 0.8 * size, "greedy": 1, "all filters": 6, "categorical": size}
    [name] = [name for name in SAMPLERS if SAMPLERS[name] is sampler]
    np.testing.assert_allclose(draw.sampled_logprobs, -math.log(kept[name]), rtol=1e-5)
    assert int(draw.tokens.max()) < kept[name]


def test_entropy_of_a_point_mass_is_zero_and_of_masked_tokens_that_of_the_rest(key):
    logits = jnp.array([[0.0, -jnp.inf, -jnp.inf], [0.0, -jnp.inf, 0.0], [0.0, -200.0, -300.0]])
    draw = sampling.categorical(jax.random.split(key, 3), logits)
    np.testing.assert_allclose(draw.entropies, [0.0, math.log(2), 0.0], atol=1e-6)
    np.testing.assert_allclose(draw.logprobs, [0.0, -math.log(2), 0.0], atol=1e-6)


def test_greedy_takes_the_likeliest_token_whatever_the_key(key):
    logits = random_logits(32).at[0].set(1.0)
    draw = sampling.greedy(jax.random.split(key, 32), logits)
    np.testing.assert_array_equal(draw.tokens, np.argmax(logits, axis=1))
    assert int(draw.tokens[0]) == 0
    expected = [max(reference.log_softmax(row, 1.0)) for row in logits.tolist()]
    np.testing.assert_allclose(draw.logprobs, expected, rtol=1e-5)
    np.testing.assert_array_equal(draw.sampled_logprobs, np.zeros(32))
    entropies = [reference_entropy(row, 1.0) for row in logits.tolist()]
    np.testing.assert_allclose(draw.entropies, entropies, rtol=1e-5)
    check_types(draw)
    chex.assert_trees_all_equal(draw, sampling.greedy(jax.random.split(key, 32)[::-1], logits))


def test_traced_hyperparameters_compile_once(key):
    keys, logits = jax.random.split(key, 4), random_logits(4)
    # Wrapped, or jit would share the programs of other tests.
    plain = jax.jit(lambda *args, **kwargs: sampling.categorical(*args, **kwargs))
    cut = jax.jit(
        lambda *args, top_k, **kwargs: sampling.truncated(*args, top_k=top_k, **kwargs),
        static_argnames="top_k",
    )
    for temperature, top_p, min_p in [(1.0, 0.9, 0.0), (0.5, 0.1, 0.2), (2.0, 1.0, 1.0)]:
        plain(keys, logits, temperature=temperature)
        cut(keys, logits, temperature=temperature, top_k=3, top_p=top_p, min_p=min_p)
    assert (plain._cache_size(), cut._cache_size()) == (1, 1)
    cut(keys, logits, temperature=1.0, top_k=4, top_p=0.9, min_p=0.0)
    assert cut._cache_size() == 2


def test_samplers_sort_nothing(key):
    keys, logits = jax.random.split(key, 4), random_logits(4)
    primitives = {
        name: str(jax.make_jaxpr(sampler)(keys, logits)) for name, sampler in SAMPLERS.items()
    }
    assert not any(" sort[" in program for program in primitives.values())
    assert {name for name, program in primitives.items() if "top_k[" in program} == {
        "top_k",
        "all filters",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1, got 0; pass None"),
        ({"top_p": 1.5}, r"top_p must lie in \[0, 1\], got 1.5"),
        ({"top_p": -0.1}, r"top_p must lie in \[0, 1\]"),
        ({"min_p": 2}, r"min_p must lie in \[0, 1\]"),
        ({"temperature": 0.0}, "temperature must be greater than 0, got 0.0; use greedy"),
    ],
)
def test_impossible_hyperparameter_is_refused(arguments, message, key):
    with pytest.raises(ValueError, match=message):
        sampling.truncated(jax.random.split(key, 2), random_logits(2), **arguments)


@every_sampler
def test_arguments_of_other_shapes_are_refused(sampler, key):
    for keys, shape in [(key, (8,)), (key, (1, 8)), (jax.random.split(key, 2), (3, 8))]:
        with pytest.raises(ValueError, match="one key per row"):
            sampler(keys, jnp.zeros(shape))


@pytest.mark.parametrize(
    "filters", [None, pytest.param({"top_k": 4}, marks=pytest.mark.long)], ids=str
)
def test_factors_change_the_temperature_of_the_draw_and_not_the_logprobs(filters, key):
    keys, logits = jax.random.split(key, 64), random_logits(64)
    kind = sampling.categorical if filters is None else sampling.truncated
    sampler = jax.jit(functools.partial(kind, **filters or {}), static_argnames="temperature")
    factors = jnp.tile(jnp.array([1.0, 0.0, 0.5, 2.0]), 16)
    draw = sampler(keys, logits, factors, temperature=0.8)
    usual = jax.nn.log_softmax(logits / 0.8)
    chosen = jnp.take_along_axis(usual, draw.tokens[:, None], axis=1)[:, 0]
    chex.assert_trees_all_close(draw.logprobs, chosen, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(draw.tokens[1::4], jnp.argmax(logits, axis=1)[1::4])
    assert (draw.sampled_logprobs[1::4] == 0).all()
    for at, temperature in ((0, 0.8), (2, 0.4), (3, 1.6)):
        other = sampler(keys, logits, temperature=temperature)
        np.testing.assert_array_equal(draw.tokens[at::4], other.tokens[at::4])
        chex.assert_trees_all_close(
            draw.sampled_logprobs[at::4], other.sampled_logprobs[at::4], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("count", [3, 10])
def test_recording_draws_the_same_and_keeps_the_likeliest_tokens(count, key):
    logits = sampling.mask_vocabulary(random_logits(5), 6)
    plain = SAMPLERS["top_k"]
    recorder = jax.jit(sampling.recording(plain, count=count, temperature=0.7))
    keys = jax.random.split(key, 5)
    draw, alone = recorder(keys, logits), plain(keys, logits)
    chex.assert_trees_all_equal(dataclasses.replace(draw, candidates=None), alone)
    assert draw.candidates.ids.shape == draw.candidates.logprobs.shape == (5, count)
    for row, ids, found in zip(np.asarray(logits), *draw.candidates, strict=True):
        log_p = reference.log_softmax(row, 0.7)
        expected = sorted(range(8), key=lambda i: (-log_p[i], i))[: min(count, 6)]
        assert ids[: len(expected)].tolist() == expected
        np.testing.assert_allclose(found[: len(expected)], [log_p[i] for i in expected], atol=1e-5)
        assert np.all(np.isneginf(found[6:]))  # ids that are masked, and places beyond all ids


def test_recording_of_no_token_is_refused():
    with pytest.raises(ValueError, match=r"count must lie in \[1, inf\], got 0"):
        sampling.recording(sampling.greedy, count=0)
