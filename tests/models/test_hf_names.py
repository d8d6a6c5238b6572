"""Names of checkpoint tensors against our leaves: complete, unambiguous, bit for bit."""

import dataclasses
import math

import chex
import jax
import numpy as np
import pytest

from models.hf import names as hf_names
from models.presets import MODELS
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_number_has_one_place_and_comes_back_to_it(config):
    params = make_params(config)
    exported = dict(hf_names.export_params(config, params))
    assert sum(array.size for array in exported.values()) == config.parameters
    assert len(exported) == len(hf_names.tensors(config))
    hf_names.check_names(config, exported)
    back = hf_names.import_params(config, exported.__getitem__)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    chex.assert_trees_all_equal(back, params)


@pytest.mark.parametrize("name", MODELS)
def test_shapes_of_a_preset_hold_all_its_parameters(name):
    listed = hf_names.tensors(MODELS[name])
    assert sum(math.prod(tensor.shape) for tensor in listed) == MODELS[name].parameters
    assert len({tensor.name for tensor in listed}) == len(listed)
    assert len({(tensor.path, tensor.index) for tensor in listed}) == len(listed)


def listing(name):
    return {tensor.name: tensor for tensor in hf_names.tensors(MODELS[name])}


def test_matrix_of_a_layer_is_transposed_and_stacked():
    params = make_params(CONFIG)
    exported = dict(hf_names.export_params(CONFIG, params))
    kernel = params["layers"]["k_proj"]["kernel"]
    np.testing.assert_array_equal(
        exported["model.layers.1.self_attn.k_proj.weight"], np.asarray(kernel[1]).T
    )
    assert all(array.flags.c_contiguous for array in exported.values())
    embedding = listing("llama-3.1-8b")["model.embed_tokens.weight"]
    assert (embedding.shape, embedding.transposed) == ((128_256, 4096), False)
    assert listing("llama-3.1-8b")["lm_head.weight"].path == ("head",)
    assert "lm_head.weight" not in listing("llama-3.2-1b")


def test_tensor_of_an_expert_is_a_slice_of_two_stacks():
    tensor = listing("qwen3-30b-a3b")["model.layers.3.mlp.experts.7.down_proj.weight"]
    assert tensor.path == ("layers", "experts", "down_proj", "kernel")
    assert (tensor.layer, tensor.expert, tensor.index) == (3, 7, (3, 7))
    assert (tensor.shape, tensor.transposed) == ((2048, 768), True)
    router = listing("qwen3-30b-a3b")["model.layers.0.mlp.gate.weight"]
    assert (router.shape, router.index) == ((128, 2048), (0,))


def test_norm_behind_attention_has_the_name_that_elsewhere_the_mlp_norm_has():
    name = "model.layers.0.post_attention_layernorm.weight"
    assert listing("gemma-2-2b")[name].path == ("layers", "attention_post_norm", "scale")
    assert listing("llama-3.1-8b")[name].path == ("layers", "mlp_norm", "scale")
    before = "model.layers.0.pre_feedforward_layernorm.weight"
    assert listing("gemma-3-1b")[before].path == ("layers", "mlp_norm", "scale")


def test_prefix_stands_before_every_name():
    plain, prefixed = hf_names.tensors(CONFIG), hf_names.tensors(CONFIG, prefix="language_model.")
    assert [f"language_model.{tensor.name}" for tensor in plain] == [t.name for t in prefixed]


def test_dtype_of_the_checkpoint_is_kept():
    exported = dict(hf_names.export_params(CONFIG, make_params()))
    half = {name: array.astype(jax.numpy.bfloat16) for name, array in exported.items()}
    params = hf_names.import_params(CONFIG, half.__getitem__)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(jax.numpy.bfloat16)}
    half["model.layers.1.mlp.up_proj.weight"] = exported["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is float32, and what"):
        hf_names.import_params(CONFIG, half.__getitem__)


def test_tensor_of_another_shape_is_refused():
    exported = dict(hf_names.export_params(CONFIG, make_params()))
    wider = dataclasses.replace(CONFIG, mlp_width=64)
    with pytest.raises(ValueError, match=r"gate_proj\.weight has the shape \(48, 32\).*\(64, 32\)"):
        hf_names.import_params(wider, exported.__getitem__)


def test_missing_and_unknown_tensors_are_named():
    names = {tensor.name for tensor in hf_names.tensors(CONFIG)}
    hf_names.check_names(CONFIG, names | {"lm_head.weight"})  # a copy of the tied embedding
    with pytest.raises(ValueError, match=r"lacks 1 tensors of this model \(model\.norm\.weight\)"):
        hf_names.check_names(CONFIG, names - {"model.norm.weight"})
    with pytest.raises(ValueError, match=r"that it does not know \(model\.layers\.9\.x\)"):
        hf_names.check_names(CONFIG, names | {"model.layers.9.x"})
    beside = {f"text.{name}" for name in names} | {"vision.patches.weight"}
    hf_names.check_names(CONFIG, beside, prefix="text.")
    with pytest.raises(ValueError, match=r"does not know \(vision\.patches\.weight\)"):
        hf_names.check_names(CONFIG, names | beside - {f"text.{name}" for name in names})
    untied = dataclasses.replace(CONFIG, tied_embeddings=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        hf_names.check_names(untied, names)
