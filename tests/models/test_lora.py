"""Adapters: their configs, and what they compute."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("qwix", reason="needs the extra `lora`")

from models import decoder, lora
from tests.models.adapters import FORWARD, LORA, adapted_params, logits_of, random_tokens
from tests.models.variants import VARIANTS
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, make_params

# qwix 0.1.8 asks flax for a name by its old spelling.
pytestmark = pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")


def fresh_adapters(config=CONFIG, adapters=LORA, seed=0):
    init = functools.partial(lora.init_adapters, config, adapters)
    return jax.jit(init)(jax.random.key(seed))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha": float("inf")}, "alpha must be positive"),
        ({"targets": ()}, "at least one of"),
        ({"targets": "q_proj"}, "got 'q_proj'"),
        ({"targets": ["q_proj"]}, "tuple"),
        ({"targets": ("q_proj", "query")}, r"unknown: \['query'\]"),
        ({"targets": ("q_proj", "q_proj")}, "different names"),
    ],
)
def test_config_that_cannot_work_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        lora.LoraConfig(**change)


def test_projections_of_experts_are_refused_and_those_of_attention_are_not():
    experts = VARIANTS["experts"]
    wrong = dataclasses.replace(LORA, targets=("q_proj", "up_proj"))
    with pytest.raises(ValueError, match=r"\['up_proj'\] belong to the experts"):
        lora.forward_fn(experts, wrong)
    everything = dataclasses.replace(LORA, targets="all linear")
    assert lora.targets(experts, everything) == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert lora.targets(CONFIG, everything)[4:] == ("gate_proj", "up_proj", "down_proj")


def test_rank_as_long_as_a_side_is_refused():
    # Keys of the small model are 16 wide, queries and the model 32.
    of_keys, of_queries = ({"targets": (name,)} for name in ("k_proj", "q_proj"))
    with pytest.raises(ValueError, match=r"rank must be below 16.*got 16"):
        lora.targets(CONFIG, lora.LoraConfig(rank=16, **of_keys))
    with pytest.raises(ValueError, match="rank must be below 32"):
        lora.targets(CONFIG, lora.LoraConfig(rank=32, **of_queries))
    assert lora.targets(CONFIG, lora.LoraConfig(rank=16, **of_queries)) == ("q_proj",)


def test_adapters_of_another_model_and_a_second_set_are_refused():
    params = adapted_params()
    with pytest.raises(ValueError, match="already have adapters"):
        lora.add(params, params["adapter"])
    wider = dataclasses.replace(CONFIG, mlp_width=64)
    with pytest.raises(ValueError, match=r"down_proj must have the shapes .*48.*got .*64"):
        lora.add(make_params(), fresh_adapters(wider))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.slow
def test_fresh_adapters_change_nothing(cached):
    params, tokens = lora.add(make_params(), fresh_adapters()), random_tokens(2, 9)
    expected = logits_of(decoder.forward_fn(CONFIG), params["base"], tokens, cached=cached)
    np.testing.assert_array_equal(logits_of(FORWARD, params, tokens, cached=cached), expected)


def test_fresh_adapters_are_random_float32_and_made_without_a_base():
    low = dataclasses.replace(CONFIG, param_dtype="bfloat16", compute_dtype="bfloat16")
    adapters = fresh_adapters(low)
    assert adapters["layers"].keys() == set(LORA.targets)
    for adapter in adapters["layers"].values():
        a, b = np.asarray(adapter["kernel_lora_a"]), np.asarray(adapter["kernel_lora_b"])
        assert a.dtype == b.dtype == np.float32
        assert a.shape[0] == CONFIG.layers and not np.array_equal(a[0], a[1])
        assert a.std() * a.shape[1] ** 0.5 == pytest.approx(2**0.5, rel=0.15)  # He
        assert not b.any()
    big = dataclasses.replace(CONFIG, vocab_size=50_000)
    init = jax.jit(functools.partial(lora.init_adapters, big, LORA))
    memory = init.lower(jax.random.key(0)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 50_000 * CONFIG.width / 10


@pytest.mark.parametrize(
    "name",
    [
        "grouped_with_bias",
        pytest.param("two_ropes", marks=pytest.mark.long),
        pytest.param("experts", marks=pytest.mark.long),
    ],
)
@pytest.mark.slow
def test_scan_cache_and_merged_parameters_give_the_same_logits(name):
    config = VARIANTS[name]
    adapters = dataclasses.replace(LORA, targets="all linear")
    forward, params = lora.forward_fn(config, adapters), adapted_params(config, adapters)
    tokens = random_tokens(2, 9)
    logits = logits_of(forward, params, tokens)
    base = logits_of(decoder.forward_fn(config), params["base"], tokens)
    assert np.abs(logits - base).max() > 0.05  # the adapters are there
    depth = decoder_depth(config, 9)
    assert_same_sums(logits_of(forward, params, tokens, cached=True), logits, depth=depth)
    merged = lora.merge(params, adapters)
    chex.assert_trees_all_equal_shapes_and_dtypes(merged, params["base"])
    assert_same_sums(logits_of(decoder.forward_fn(config), merged, tokens), logits, depth=depth)


def test_merge_is_the_formula_and_leaves_the_rest():
    params = adapted_params()
    merged = lora.merge(params, LORA)
    adapter = params["adapter"]["layers"]["q_proj"]
    product = adapter["kernel_lora_a"][1].astype(float) @ adapter["kernel_lora_b"][1]
    expected = params["base"]["layers"]["q_proj"]["kernel"][1] + 8.0 / 4 * product
    assert_same_sums(merged["layers"]["q_proj"]["kernel"][1], expected, depth=LORA.rank + 1)
    kept = [jax.tree.map(np.asarray, tree) for tree in (merged, params["base"])]
    for tree in kept:
        for name in LORA.targets:
            tree["layers"][name].pop("kernel")
    chex.assert_trees_all_equal(*kept)


def test_merging_in_bfloat16_rounds_to_the_nearest():
    low = dataclasses.replace(CONFIG, param_dtype="bfloat16")
    params = adapted_params(low)
    merged = lora.merge(params, LORA)["layers"]["v_proj"]["kernel"]
    assert merged.dtype == jnp.bfloat16
    exact = lora.merge(jax.tree.map(lambda x: np.asarray(x, np.float32), params), LORA)
    exact = np.asarray(exact["layers"]["v_proj"]["kernel"])
    error = np.abs(np.asarray(merged, np.float32) - exact)
    assert np.all(error <= np.abs(exact) * 2.0**-8) and error.max() > 0


@pytest.mark.parametrize("unstack", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_layout_for_decoding_is_the_same_model(unstack, dtype):
    config = dataclasses.replace(CONFIG, param_dtype=dtype, compute_dtype=dtype)
    forward, params = lora.forward_fn(config, LORA, unstack=unstack), adapted_params(config)
    laid_out = forward.for_decoding(params)
    assert isinstance(laid_out["layers"], tuple) == unstack
    tokens = random_tokens(2, 1)
    expected = logits_of(forward, params, tokens, cached=True)
    again = forward.for_decoding(laid_out)
    base = logits_of(decoder.forward_fn(config), params["base"], tokens, cached=True)
    assert np.abs(expected - base).max() > 0.05
    for other in (laid_out, again):
        found = logits_of(forward, other, tokens, cached=True)
        assert_same_sums(found, expected, depth=decoder_depth(config, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"compute_dtype": "bfloat16"},
        pytest.param(
            {"param_dtype": "bfloat16", "compute_dtype": "bfloat16"}, marks=pytest.mark.long
        ),
    ],
)
@pytest.mark.slow
def test_bfloat16_model_with_adapters_stays_near_the_float32_one(change):
    low = dataclasses.replace(CONFIG, **change)
    tokens, params = random_tokens(2, 8), adapted_params()
    reference = logits_of(FORWARD, params, tokens)
    base = logits_of(decoder.forward_fn(CONFIG), params["base"], tokens)
    far = np.abs(reference - base).mean()
    for cached in (False, True):
        logits = logits_of(lora.forward_fn(low, LORA), adapted_params(low), tokens, cached=cached)
        assert np.abs(logits - reference).mean() < 0.1 * far
