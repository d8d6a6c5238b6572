"""The decoder: published sizes, the cache against the full forward, what attends to what."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import decoder
from models.config import ModelConfig
from models.presets import MODELS
from tests.models.reference import reference_logits
from tests.models.variants import VARIANTS
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, FORWARD, make_params

# Facts of the published checkpoints, counted from their safetensors. That of Gemma 3 12B holds
# 12,187,325,040 numbers, of which 421,290,864 see images: 27 layers of SigLIP, its embeddings of
# 4,096 patches, and the projection from 1,152 to 3,840.
PUBLISHED = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-1b": 999_885_952,
    "gemma-3-12b": 12_187_325_040 - 421_290_864,
}


@functools.cache
def shapes(config):
    return jax.eval_shape(functools.partial(decoder.init_params, config), jax.random.key(0))


def random_tokens(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (rows, length), np.int32)


@functools.cache
def whole(config):
    """A forward pass without a cache, compiled once for each shape of tokens."""
    forward = decoder.forward_fn(config)

    @jax.jit
    def run(params, tokens, positions, segment_ids):
        hidden, _ = forward.hidden(params, tokens, positions, segment_ids=segment_ids)
        return forward.logits(params, hidden)

    return run


@functools.cache
def judged(config):
    """Float64 reference logits of three rows of twelve tokens."""
    params = make_params(config)
    return np.stack([reference_logits(config, params, row) for row in random_tokens(3, 12)])


def full_logits(config, params, tokens, positions=None, segment_ids=None):
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(whole(config)(params, tokens, positions, segment_ids))


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_a_preset_match_the_formula_and_the_published_total(name):
    leaves = jax.tree.leaves(shapes(MODELS[name]))
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert count == MODELS[name].parameters == PUBLISHED.get(name, count)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_parameters_of_every_variant_match_the_formula(config):
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config))) == (
        config.parameters
    )


@pytest.mark.parametrize("config", [*VARIANTS.values(), *MODELS.values()])
def test_logical_axes_name_every_axis_of_every_parameter(config):
    axes = decoder.logical_axes(config)
    params = shapes(config)
    leaves, structure = jax.tree.flatten(axes, is_leaf=lambda x: isinstance(x, tuple))
    assert structure == jax.tree.structure(params)
    assert [len(names) for names in leaves] == [p.ndim for p in jax.tree.leaves(params)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kv_heads": 3}, "query_heads must be a multiple"),
        ({"head_dim": 7}, "head_dim must be"),
        ({"window": 0}, "at least one token"),
        ({"window": 2, "window_pattern": ()}, "at least one layer"),
        ({"local_rope_theta": 1e4}, "window is None"),
        ({"residual_init": -1.0}, "residual_init must be .*, got -1.0"),
        ({"experts": 4}, "experts_per_token must be in 1 to experts=4, got 0"),
        ({"experts": 4, "experts_per_token": 5}, "got 5"),
    ],
)
def test_config_that_cannot_work_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize("name", ["qk_norm", pytest.param("two_ropes", marks=pytest.mark.slow)])
def test_fresh_norms_multiply_by_one(name):
    params = jax.jit(functools.partial(decoder.init_params, VARIANTS[name]))(jax.random.key(0))
    names = {"attention_norm", "mlp_norm", "q_norm", "k_norm"}
    if VARIANTS[name].post_norms:
        names |= {"attention_post_norm", "mlp_post_norm"}
    scales = {key: leaf["scale"] for key, leaf in params["layers"].items() if "scale" in leaf}
    assert scales.keys() == names
    for scale in (*scales.values(), params["final_norm"]["scale"]):
        np.testing.assert_array_equal(scale, 0.0 if VARIANTS[name].zero_centered_norms else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["grouped_with_bias", pytest.param("experts", marks=pytest.mark.long)]
)
def test_residual_init_scales_what_writes_to_the_residual_and_nothing_else(name):
    def fresh(scale):
        config = dataclasses.replace(VARIANTS[name], residual_init=scale)
        return jax.jit(functools.partial(decoder.init_params, config))(jax.random.key(0))

    def expected(path, leaf):
        writes = any(key.key in ("o_proj", "down_proj") for key in path)
        return leaf * (0.5 if writes else 1.0)

    whole = fresh(1.0)
    chex.assert_trees_all_equal(fresh(0.5), jax.tree_util.tree_map_with_path(expected, whole))
    # With nothing added, the last norm is given the embeddings.
    config = dataclasses.replace(VARIANTS[name], residual_init=0.0)
    params, tokens = fresh(0.0), random_tokens(2, 5)
    positions = np.broadcast_to(np.arange(5), tokens.shape)
    hidden, _ = decoder.forward_fn(config).hidden(params, tokens, positions)
    x = np.asarray(params["embedding"], np.float64)[tokens]
    normalized = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_eps)
    np.testing.assert_allclose(hidden, normalized, rtol=1e-5)


QUICK = ("grouped_with_bias", "two_ropes", "experts")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, config in VARIANTS.items()
    ],
)
def test_forward_equals_a_reference_in_float64(config):
    logits = full_logits(config, make_params(config), random_tokens(3, 12))
    assert_same_sums(logits, judged(config), depth=decoder_depth(config, 12))


@pytest.mark.slow
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_ragged_chunks_through_the_cache_equal_the_reference_of_the_whole_rows(config):
    forward, params = decoder.forward_fn(config), make_params(config)
    tokens = random_tokens(3, 12)
    found = np.zeros((3, 12, config.vocab_size), np.float32)

    @jax.jit
    def feed(cache, chunk, positions):
        hidden, cache = forward.hidden(params, chunk, positions, cache=cache)
        return forward.logits(params, hidden), cache

    cache = forward.init_cache(3, 12)
    done = np.zeros(3, int)
    # Tokens of each row in each chunk; what a row does not use of a chunk is junk, written into
    # slots that the next chunk writes again.
    for taken in ([5, 2, 4], [1, 3, 2], [5, 5, 5], [0, 1, 1], [1, 1, 0]):
        positions = done[:, None] + np.arange(5)
        chunk = np.full((3, 5), 7, np.int32)
        for row, count in enumerate(taken):
            chunk[row, :count] = tokens[row, done[row] : done[row] + count]
        logits, cache = feed(cache, chunk, positions)
        for row, count in enumerate(taken):
            found[row, done[row] : done[row] + count] = logits[row, :count]
        done += taken
    assert done.tolist() == [12, 12, 12]
    assert_same_sums(found, judged(config), depth=decoder_depth(config, 12))


@pytest.mark.parametrize("unstack", [True, False])
def test_parameters_laid_out_for_decoding_are_the_same_parameters(unstack):
    forward = decoder.forward_fn(CONFIG, unstack=unstack)
    params = make_params()
    laid_out = forward.for_decoding(params)
    assert isinstance(laid_out["layers"], tuple) == unstack
    tokens, positions = np.array([[5], [7]]), np.zeros((2, 1), np.int32)
    outputs = [
        jax.jit(lambda p: forward.hidden(p, tokens, positions, cache=forward.init_cache(2, 4)))(p)
        for p in (params, laid_out, forward.for_decoding(laid_out))
    ]
    for other in outputs[1:]:
        assert_same_sums(other, outputs[0], depth=decoder_depth(CONFIG, 4))


def test_stale_slots_of_the_cache_are_never_attended():
    # What an earlier trajectory, or an earlier policy, left behind the row's own tokens.
    params, tokens = make_params(), random_tokens(2, 6)
    positions = np.broadcast_to(np.arange(6), (2, 6))
    clean = FORWARD.init_cache(2, 16)
    stale = jax.tree.map(lambda x: x + 1e3, clean)
    run = jax.jit(lambda cache: FORWARD.hidden(params, tokens, positions, cache=cache)[0])
    np.testing.assert_array_equal(run(clean), run(stale))


def test_token_beyond_the_cache_is_dropped():
    params, tokens = make_params(), random_tokens(1, 4)
    cache = FORWARD.init_cache(1, 4)
    feed = jax.jit(lambda cache, positions: FORWARD.hidden(params, tokens, positions, cache=cache))
    _, cache = feed(cache, np.arange(4)[None])
    _, after = feed(cache, np.arange(4, 8)[None])
    chex.assert_trees_all_equal(after, cache)


def test_changed_token_changes_what_follows_and_nothing_before():
    # Every token is attended by all later ones, whoever wrote it.
    params, tokens = make_params(), random_tokens(3, 12)
    changed = tokens.copy()
    changed[0, 4] = (tokens[0, 4] + 1) % CONFIG.vocab_size
    before, after = (full_logits(CONFIG, params, t)[0] for t in (tokens, changed))
    np.testing.assert_array_equal(before[:4], after[:4])
    assert np.all(np.abs(before[4:] - after[4:]).max(axis=-1) > 1e-3)


def test_packed_documents_equal_the_documents_alone():
    params = make_params()
    first, second = random_tokens(1, 5, seed=1), random_tokens(1, 4, seed=2)
    packed = np.concatenate([first, second, random_tokens(1, 3, seed=3)], axis=1)
    positions = np.array([[*range(5), *range(4), *range(3)]])
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    logits = full_logits(CONFIG, params, packed, positions, segments)[0]
    alone = random_tokens(3, 12)
    alone[0, :5], alone[1, :4] = first[0], second[0]
    expected = full_logits(CONFIG, params, alone)  # what stands behind a token is not seen
    expected = np.concatenate([expected[0, :5], expected[1, :4]])
    assert_same_sums(logits[:9], expected, depth=decoder_depth(CONFIG, 12))


def test_packed_document_does_not_see_its_neighbors():
    params = make_params()
    tokens = random_tokens(1, 12)
    changed = tokens.copy()
    changed[0, :5] = random_tokens(1, 5, seed=9)
    positions, segments = np.array([[*range(5), *range(7)]]), np.array([[1] * 5 + [2] * 7])
    before, after = (
        full_logits(CONFIG, params, t, positions, segments)[0] for t in (tokens, changed)
    )
    np.testing.assert_array_equal(before[5:], after[5:])
    assert np.abs(before[:5] - after[:5]).max() > 1e-3


def test_bfloat16_model_stays_near_the_float32_one():
    low = dataclasses.replace(CONFIG, param_dtype="bfloat16", compute_dtype="bfloat16")
    params = make_params()
    half = make_params(low)
    tokens = random_tokens(3, 12)
    logits = full_logits(low, half, tokens)
    assert logits.dtype == np.float32
    assert decoder.forward_fn(low).init_cache(1, 2)[0][0].dtype == jnp.bfloat16
    reference = full_logits(CONFIG, params, tokens)
    assert np.abs(logits - reference).max() < 0.1 * np.abs(reference).max()


def test_config_counts_a_model_by_hand():
    config = ModelConfig(
        vocab_size=5, width=4, layers=2, query_heads=2, kv_heads=1, head_dim=2, mlp_width=3
    )
    attention = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4  # q, k, v, o
    assert config.parameters == 2 * (attention + 3 * 4 * 3 + 2 * 4) + 5 * 4 + 4


def test_config_counts_experts_by_hand():
    config = ModelConfig(
        vocab_size=5,
        width=4,
        layers=2,
        query_heads=2,
        kv_heads=1,
        head_dim=2,
        mlp_width=3,
        experts=6,
        experts_per_token=2,
        post_norms=True,
        tied_embeddings=False,
    )
    attention = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4  # q, k, v, o
    experts = 4 * 6 + 6 * 3 * 4 * 3  # router, six times gate, up and down
    assert config.parameters == 2 * (attention + experts + 4 * 4) + 2 * 5 * 4 + 4


def test_local_layers_repeat_the_pattern_from_the_first_layer_on():
    assert MODELS["gemma-3-1b"].local_layers == ((True,) * 5 + (False,)) * 4 + (True, True)
    assert MODELS["gemma-2-2b"].local_layers == (True, False) * 13
    assert MODELS["mistral-7b"].local_layers == (True,) * 32
    assert not any(MODELS["qwen3-8b"].local_layers)


def squared_logits(config, params, tokens):
    forward = decoder.forward_fn(config)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = forward.hidden(params, tokens, positions)
    return jnp.mean(jnp.square(forward.logits(params, hidden)))


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        pytest.param("soft_caps", "full", marks=pytest.mark.slow),
        pytest.param("experts", "full", marks=pytest.mark.long),
        pytest.param("soft_caps", "dots", marks=pytest.mark.long),
        pytest.param("experts", "dots", marks=pytest.mark.slow),
    ],
)
def test_rematerialized_gradient_is_the_gradient(name, remat):
    config = dataclasses.replace(VARIANTS[name], remat=remat)
    depth = 3 * decoder_depth(config, 7) + 2 * 7  # there and back, and over the tokens
    assert_same_sums(gradient(config), gradient(VARIANTS[name]), depth=depth)


@functools.cache
def gradient(config):
    loss = functools.partial(squared_logits, config, tokens=random_tokens(2, 7))
    return jax.jit(jax.grad(loss))(make_params(config))


@pytest.mark.parametrize("name", ["two_ropes", "experts"])
def test_rematerialization_keeps_less_for_the_backward_pass(name):
    def kept(remat):
        config = dataclasses.replace(VARIANTS[name], remat=remat)
        loss = functools.partial(squared_logits, config, tokens=random_tokens(2, 32))
        residuals = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], make_params(config))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(residuals))

    assert kept("full") < kept("dots") < kept("none")
