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
from tests.tiny import CONFIG, FORWARD, make_params

# Facts of the published checkpoints, counted from their safetensors.
PUBLISHED = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
}
VARIANTS = {
    "grouped_with_bias": CONFIG,
    "qk_norm": dataclasses.replace(CONFIG, qkv_bias=False, qk_norm=True),
    "one_kv_head_untied": dataclasses.replace(CONFIG, kv_heads=1, tied_embeddings=False),
    "no_groups": dataclasses.replace(CONFIG, kv_heads=CONFIG.query_heads),
}


def shapes(config):
    return jax.eval_shape(functools.partial(decoder.init_params, config), jax.random.key(0))


def random_tokens(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (rows, length), np.int32)


def full_logits(forward, params, tokens, positions=None, segment_ids=None):
    """Logits of a forward pass without a cache."""

    def run(params, tokens, positions, segment_ids):
        hidden, _ = forward.hidden(params, tokens, positions, segment_ids=segment_ids)
        return forward.logits(params, hidden)

    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(jax.jit(run)(params, tokens, positions, segment_ids))


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
    [({"kv_heads": 3}, "query_heads must be a multiple"), ({"head_dim": 7}, "head_dim must be")],
)
def test_config_that_cannot_work_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **change)


def reference_logits(config, params, tokens):
    """One row in float64, head by head, from the papers: RMSNorm, rotary positions, SwiGLU."""

    def normed(x, scale):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_eps) * scale

    def rotated(x):
        half = config.head_dim // 2
        rows = []
        for position, row in enumerate(x):
            turned = row.copy()
            for i in range(half):
                angle = position * config.rope_theta ** (-2 * i / config.head_dim)
                c, s = math.cos(angle), math.sin(angle)
                turned[i] = row[i] * c - row[half + i] * s
                turned[half + i] = row[half + i] * c + row[i] * s
            rows.append(turned)
        return np.array(rows)

    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    size, shared = config.head_dim, config.query_heads // config.kv_heads
    x = params["embedding"][tokens]
    for index in range(config.layers):
        layer = jax.tree.map(lambda p, i=index: p[i], params["layers"])

        def project(name, h, layer=layer):
            return h @ layer[name]["kernel"] + layer[name].get("bias", 0.0)

        h = normed(x, layer["attention_norm"]["scale"])
        q, k, v = (project(name, h) for name in ("q_proj", "k_proj", "v_proj"))
        heads = []
        for head in range(config.query_heads):
            own = slice(head * size, (head + 1) * size)
            group = slice(head // shared * size, (head // shared + 1) * size)
            query, keys = q[:, own], k[:, group]
            if config.qk_norm:
                query = normed(query, layer["q_norm"]["scale"])
                keys = normed(keys, layer["k_norm"]["scale"])
            scores = rotated(query) @ rotated(keys).T / math.sqrt(size)
            weights = np.exp(np.where(np.tri(len(tokens), dtype=bool), scores, -np.inf))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, group])
        x = x + project("o_proj", np.concatenate(heads, axis=1))
        h = normed(x, layer["mlp_norm"]["scale"])
        gate = project("gate_proj", h)
        x = x + project("down_proj", gate / (1 + np.exp(-gate)) * project("up_proj", h))
    table = params["embedding"] if config.tied_embeddings else params["head"]
    return normed(x, params["final_norm"]["scale"]) @ table.T


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_forward_equals_a_reference_in_float64(config):
    params, tokens = make_params(config), random_tokens(2, 9)
    logits = full_logits(decoder.forward_fn(config), params, tokens)
    for row in range(2):
        expected = reference_logits(config, params, tokens[row])
        np.testing.assert_allclose(logits[row], expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_ragged_chunks_through_the_cache_equal_the_full_forward(config):
    forward, params = decoder.forward_fn(config), make_params(config)
    tokens = random_tokens(3, 12)
    expected = full_logits(forward, params, tokens)

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
            chex.assert_trees_all_close(
                np.asarray(logits[row, :count]),
                expected[row, done[row] : done[row] + count],
                atol=2e-5,
            )
        done += taken
    assert done.tolist() == [12, 12, 12]


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
        chex.assert_trees_all_close(other, outputs[0], atol=1e-6)


def test_stale_slots_of_the_cache_are_never_attended():
    # T-25: what an earlier trajectory, or an earlier policy, left behind the row's own tokens.
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
    # T-02: every token is attended by all later ones, whoever wrote it.
    params, tokens = make_params(), random_tokens(1, 9)
    changed = tokens.copy()
    changed[0, 4] = (tokens[0, 4] + 1) % CONFIG.vocab_size
    before, after = (full_logits(FORWARD, params, t)[0] for t in (tokens, changed))
    np.testing.assert_array_equal(before[:4], after[:4])
    assert np.all(np.abs(before[4:] - after[4:]).max(axis=-1) > 1e-3)


def test_packed_documents_equal_the_documents_alone():
    params = make_params()
    first, second = random_tokens(1, 5, seed=1), random_tokens(1, 4, seed=2)
    packed = np.concatenate([first, second, random_tokens(1, 3, seed=3)], axis=1)
    positions = np.array([[*range(5), *range(4), *range(3)]])
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    logits = full_logits(FORWARD, params, packed, positions, segments)[0]
    for start, alone in ((0, first), (5, second)):
        expected = full_logits(FORWARD, params, alone)[0]
        chex.assert_trees_all_close(logits[start : start + len(expected)], expected, atol=2e-5)


def test_packed_document_does_not_see_its_neighbors():
    params = make_params()
    tokens = random_tokens(1, 9)
    changed = tokens.copy()
    changed[0, :5] = random_tokens(1, 5, seed=9)
    positions, segments = np.array([[*range(5), *range(4)]]), np.array([[1] * 5 + [2] * 4])
    before, after = (
        full_logits(FORWARD, params, t, positions, segments)[0] for t in (tokens, changed)
    )
    np.testing.assert_array_equal(before[5:], after[5:])
    assert np.abs(before[:5] - after[:5]).max() > 1e-3


def test_bfloat16_model_stays_near_the_float32_one():
    low = dataclasses.replace(CONFIG, param_dtype="bfloat16", compute_dtype="bfloat16")
    params = make_params()
    half = make_params(low)
    tokens = random_tokens(2, 8)
    logits = full_logits(decoder.forward_fn(low), half, tokens)
    assert logits.dtype == np.float32
    assert decoder.forward_fn(low).init_cache(1, 2)[0][0].dtype == jnp.bfloat16
    reference = full_logits(FORWARD, params, tokens)
    assert np.abs(logits - reference).max() < 0.1 * np.abs(reference).max()


def test_rotary_scores_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 1, 8)).astype(np.float32)
    rotate = jax.jit(functools.partial(decoder.rotate, theta=1e4))

    def score(i, j):
        rotated = [rotate(x, np.array([[p]])) for x, p in ((q, i), (k, j))]
        return float(np.sum(np.asarray(rotated[0]) * np.asarray(rotated[1])))

    assert score(3, 1) == pytest.approx(score(1003, 1001), abs=1e-3)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def test_rotary_angles_stay_exact_in_bfloat16():
    # Rounded to bfloat16, positions 257 and 258 would be one and the same.
    x = jnp.ones((1, 2, 1, 8), jnp.bfloat16)
    rotated = decoder.rotate(x, np.array([[257, 258]]), theta=1e4)
    assert np.abs(np.asarray(rotated[0, 0] - rotated[0, 1], np.float32)).max() > 0.1


def test_config_counts_a_model_by_hand():
    config = ModelConfig(
        vocab_size=5, width=4, layers=2, query_heads=2, kv_heads=1, head_dim=2, mlp_width=3
    )
    attention = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4  # q, k, v, o
    assert config.parameters == 2 * (attention + 3 * 4 * 3 + 2 * 4) + 5 * 4 + 4
