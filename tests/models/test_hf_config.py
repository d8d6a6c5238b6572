"""`config.json` of published models against the presets, and what is refused."""

import dataclasses
import json

import pytest

from models.config import ModelConfig, RopeScaling
from models.hf import config as hf_config
from models.hf import families as hf_families
from models.presets import MODELS
from tests.tiny import CONFIG

# As published, without keys that say nothing of the model.
FILES = {
    "qwen2.5-7b": """{
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2",
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 152064}""",
    "qwen3-0.6b": """{
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
        "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
        "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 151936}""",
    "qwen3-30b-a3b": """{
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
        "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 6144, "max_window_layers": 48,
        "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
        "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false,
        "vocab_size": 151936}""",
    "llama-3.1-8b": """{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "vocab_size": 128256}""",
    "llama-3.2-1b": """{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "vocab_size": 128256}""",
    "mistral-7b": """{
        "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "vocab_size": 32000}""",
    "gemma-2-2b": """{
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304, "initializer_range": 0.02, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
        "torch_dtype": "bfloat16", "vocab_size": 256000}""",
    "gemma-3-1b": """{
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
        "attn_logit_softcapping": null, "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
        "vocab_size": 262144}""",
    "gemma-3-12b": """{
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {
            "hidden_size": 3840, "intermediate_size": 15360, "model_type": "gemma3_text",
            "num_attention_heads": 16, "num_hidden_layers": 48, "num_key_value_heads": 8,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
        "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152}}""",
}
LLAMA = json.loads(FILES["llama-3.1-8b"])


@pytest.mark.parametrize("name", FILES)
def test_published_file_is_the_preset(name):
    assert hf_config.from_hf(json.loads(FILES[name])) == MODELS[name]


@pytest.mark.parametrize("name", MODELS)
def test_preset_survives_the_way_there_and_back(name):
    written = hf_config.to_hf(MODELS[name], others={"eos_token_id": 7, "vocab_size": 1})
    assert written["eos_token_id"] == 7
    there_and_back = hf_config.from_hf(json.loads(json.dumps(written)))
    # A file knows neither how a pass is computed nor how random parameters begin.
    unknown = {"compute_dtype": MODELS[name].param_dtype, "residual_init": 1.0}
    assert there_and_back == dataclasses.replace(MODELS[name], **unknown)


def test_file_that_a_model_came_from_does_not_overrule_it():
    full = {"rope_type": "default", "rope_theta": 9.0}
    origin = {
        **json.loads(FILES["gemma-3-1b"]),
        "rope_parameters": {"full_attention": full, "sliding_attention": full},
        "layer_types": ["full_attention"] * 26,
        "dtype": "float16",
    }
    written = hf_config.to_hf(MODELS["gemma-3-12b"], others=origin)
    assert written["max_position_embeddings"] == origin["max_position_embeddings"]
    assert hf_config.from_hf(written) == MODELS["gemma-3-12b"]


@pytest.mark.parametrize("name", [name for name in FILES if name != "gemma-3-12b"])
def test_written_file_says_what_the_published_one_says(name):
    published = json.loads(FILES[name])
    written = hf_config.to_hf(MODELS[name])
    same = written.keys() & published.keys() - {"sliding_window", "max_window_layers"}
    assert {key: written[key] for key in same} == {key: published[key] for key in same}
    assert {"architectures", "model_type", "hidden_size", "rope_theta", "torch_dtype"} <= same


def test_later_style_of_rotary_keys_means_the_same():
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    near = {"rope_type": "default", "rope_theta": 1e4}
    config = json.loads(FILES["gemma-3-12b"])
    del config["text_config"]["rope_scaling"]
    config["text_config"]["rope_parameters"] = {"full_attention": full, "sliding_attention": near}
    assert hf_config.from_hf(config) == MODELS["gemma-3-12b"]
    later = {key: value for key, value in LLAMA.items() if key not in ("rope_theta", "torch_dtype")}
    later["rope_parameters"] = {**later.pop("rope_scaling"), "rope_theta": 5e5}
    assert hf_config.from_hf({**later, "dtype": "bfloat16"}) == MODELS["llama-3.1-8b"]


def test_qwen_for_long_contexts_is_read_with_its_window():
    config = {
        **json.loads(FILES["qwen2.5-7b"]),
        "rope_scaling": {
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
            "type": "yarn",
        },
        "use_sliding_window": True,
        "max_window_layers": 26,
    }
    found = hf_config.from_hf(config)
    assert found.rope_scaling == RopeScaling(kind="yarn", factor=4.0, original_positions=32768)
    assert (found.window, found.local_layers) == (131_072, (False,) * 26 + (True,) * 2)
    assert hf_config.from_hf(hf_config.to_hf(found)) == found


def test_decoder_within_a_model_of_images_has_a_prefix_of_its_own():
    assert hf_config.name_prefix(json.loads(FILES["gemma-3-12b"])) == "language_model."
    assert hf_config.name_prefix(json.loads(FILES["gemma-3-1b"])) == ""


def test_missing_head_sizes_come_from_the_width():
    found = hf_config.from_hf({**LLAMA, "num_key_value_heads": None, "head_dim": None})
    assert (found.kv_heads, found.head_dim) == (32, 128)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["FalconForCausalLM"]}, "'FalconForCausalLM'; known: Qwen2ForCausalLM"),
        ({"architectures": None}, "the architecture 'none'"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config="),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_type='longrope'"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}},
            "mscale of the rotary scaling 'yarn'=0.7",
        ),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
    ],
)
def test_feature_that_the_decoder_lacks_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        hf_config.from_hf({**LLAMA, **change})


def test_dense_layers_among_routed_ones_are_refused():
    config = json.loads(FILES["qwen3-30b-a3b"])
    for change in ({"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}):
        with pytest.raises(ValueError, match=r"mlp_only_layers=|decoder_sparse_step=2"):
            hf_config.from_hf({**config, **change})


def test_missing_key_is_named():
    scaling = {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}
    with pytest.raises(ValueError, match=r"'llama3' in config\.json lacks low_freq_factor"):
        hf_config.from_hf({**LLAMA, "rope_scaling": scaling})
    with pytest.raises(ValueError, match=r"LlamaForCausalLM lacks hidden_size, vocab_size"):
        hf_config.from_hf(
            {k: v for k, v in LLAMA.items() if k not in ("hidden_size", "vocab_size")}
        )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"qk_norm": True}, "qk_norm=True|qkv_bias=True"),
        ({"embedding_scale": True}, "embedding_scale=True; without that it is a Qwen2ForCausalLM"),
        ({"logit_softcap": 3.0}, "logit_softcap=3.0"),
        ({"window": 4, "window_pattern": (True, False)}, r"window_pattern=\(True, False\)"),
        ({"window": 4, "local_rope_theta": 1e3}, "local_rope_theta=1000.0"),
    ],
)
def test_model_that_no_family_has_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        hf_config.to_hf(dataclasses.replace(CONFIG, **change))


def test_every_field_of_a_config_is_written_or_has_a_rule():
    # A new field of ModelConfig has to be taken care of here.
    named = {*hf_families.COMMON, *(n for family in hf_families.FAMILIES for n in family.keys)}
    fixed = {name for family in hf_families.FAMILIES for name in family.fixed}
    handled = named | fixed | hf_families.RULED | hf_families.OURS
    assert handled == {field.name for field in dataclasses.fields(ModelConfig)}
