"""Families of Hugging Face checkpoints as data, which `models/hf/config.py` reads and writes by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

# Our field → key of config.json, in every family.
COMMON = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "query_heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_eps": "rms_norm_eps",
    "init_scale": "initializer_range",
    "tied_embeddings": "tie_word_embeddings",
}
COMMON_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "rope_theta": 1e4,
    "hidden_act": "silu",
}
DENSE = {"mlp_width": "intermediate_size"}
ROUTED = {
    "mlp_width": "moe_intermediate_size",
    "experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "normalize_router": "norm_topk_prob",
}
GEMMA = {
    **DENSE,
    "query_scalar": "query_pre_attn_scalar",
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
}
GEMMA_DEFAULTS = {
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
GEMMA_FIXED = {"zero_centered_norms": True, "post_norms": True, "embedding_scale": True}

LLADA = {  # after OLMo
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "mlp_hidden_size",
    "initializer_range": "init_std",
    "tie_word_embeddings": "weight_tying",
    "max_position_embeddings": "max_sequence_length",
    "hidden_act": "activation_type",
}
LLADA_ASSERTED = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "block_group_size": 1,
}
LLADA_TENSORS = {
    "model.transformer.wte.": "model.embed_tokens.",
    "model.transformer.ln_f.": "model.norm.",
    "model.transformer.ff_out.": "lm_head.",
    "model.transformer.blocks.": "model.layers.",
    ".attn_norm.": ".input_layernorm.",
    ".ff_norm.": ".post_attention_layernorm.",
    ".q_proj.": ".self_attn.q_proj.",
    ".k_proj.": ".self_attn.k_proj.",
    ".v_proj.": ".self_attn.v_proj.",
    ".attn_out.": ".self_attn.o_proj.",
    ".ff_proj.": ".mlp.gate_proj.",
    ".up_proj.": ".mlp.up_proj.",
    ".ff_out.": ".mlp.down_proj.",
}

# RULED: fields with their own rules below. OURS: fields that are no property of a checkpoint.
RULED = {"rope_theta", "rope_scaling", "local_rope_theta", "window", "window_pattern", "activation"}
OURS = {"param_dtype", "compute_dtype", "attention", "remat", "residual_init"}

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
SCALINGS: dict[str, dict[str, str]] = {
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
    },
}
OPTIONAL = {"beta_fast", "beta_slow", "attention_factor"}  # keys of these that a file may leave out
# Other rotary settings, with the values that change nothing; None: no value changes anything.
REPEATED: dict[str, tuple[Any, ...] | None] = {
    "finetuned": None,
    "original_max_position_embeddings": None,
    "truncate": (True,),
    "partial_rotary_factor": (1,),
    "factor": (1,),
    "attention_factor": (1,),
    "mscale": (1,),
    "mscale_all_dim": (0,),
    "beta_fast": (32,),
    "beta_slow": (1,),
    "low_freq_factor": (1,),
    "high_freq_factor": (4,),
}
ALIASES = {"num_local_experts": "num_experts"}  # name in later files → in published ones
# Keys that express the same settings as the keys above in another way.
RIVALS = {
    *ALIASES,
    "dtype",
    "layer_types",
    "rope_parameters",
    "sliding_window_pattern",
    "text_config",
    "vision_config",
}
# Features that a ModelConfig cannot express, with the values that turn them off.
ABSENT: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_bidirectional_attention": (False,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
    "partial_rotary_factor": (1,),
    "quantization_config": (),
    "multi_query_attention": (False,),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The common properties of the checkpoints of one architecture."""

    architecture: str
    model_type: str
    keys: Mapping[str, str]  # our field → key of config.json, in addition to `COMMON`
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fields of ModelConfig
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of absent keys
    activation: str = "hidden_act"  # its key
    windows: Literal["none", "all", "upper", "pattern"] = "none"
    """Layers that may be local: none; all; from `max_window_layers` on, if `use_sliding_window`; or
    all but every `sliding_window_pattern`-th."""
    local_theta: bool = False  # local layers have their own rotary base
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Key of config.json in the other families → its key in this one."""
    asserted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Key → the only value that the decoder can express; `defaults` has that of an absent key."""
    tensors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Part of the name of a tensor → the part that stands for it in other families, to be replaced
    in this order."""


FAMILIES = (
    Family(
        architecture="Qwen2ForCausalLM",
        model_type="qwen2",
        keys=DENSE,
        fixed={"qkv_bias": True},
        defaults={
            "sliding_window": 4096,
            "max_window_layers": 28,
            "max_position_embeddings": 32_768,
        },
        windows="upper",
    ),
    Family(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        keys=DENSE,
        fixed={"qk_norm": True},
        defaults={
            "head_dim": 128,
            "sliding_window": 4096,
            "max_window_layers": 28,
            "max_position_embeddings": 32_768,
        },
        windows="upper",
    ),
    Family(
        architecture="Qwen3MoeForCausalLM",
        model_type="qwen3_moe",
        keys=ROUTED,
        fixed={"qk_norm": True},
        defaults={"norm_topk_prob": False, "max_position_embeddings": 32_768},
    ),
    Family(
        architecture="LlamaForCausalLM",
        model_type="llama",
        keys=DENSE,
        defaults={"max_position_embeddings": 2048},
    ),
    Family(
        architecture="MistralForCausalLM",
        model_type="mistral",
        keys=DENSE,
        defaults={
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 131_072,
        },
        windows="all",
    ),
    Family(
        architecture="Gemma2ForCausalLM",
        model_type="gemma2",
        keys=GEMMA,
        fixed=GEMMA_FIXED,
        defaults={
            **GEMMA_DEFAULTS,
            "vocab_size": 256_000,
            "max_position_embeddings": 8192,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window_pattern": 2,
        },
        activation="hidden_activation",
        windows="pattern",
    ),
    Family(
        architecture="Gemma3ForCausalLM",
        model_type="gemma3_text",
        keys=GEMMA,
        fixed={**GEMMA_FIXED, "qk_norm": True},
        defaults={
            **GEMMA_DEFAULTS,
            "vocab_size": 262_208,
            "max_position_embeddings": 131_072,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "sliding_window_pattern": 6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
        activation="hidden_activation",
        windows="pattern",
        local_theta=True,
    ),
    Family(
        architecture="LLaDAModelLM",
        model_type="llada",
        keys={**DENSE, "mask_id": "mask_token_id", "qkv_bias": "include_qkv_bias"},
        defaults={  # of LLaDAConfig, which are those of GPT-2
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "include_qkv_bias": False,
            "hidden_act": "swiglu",
            "max_position_embeddings": 1024,
            **LLADA_ASSERTED,
            "block_type": "sequential",
            "layer_norm_type": "default",
            "rope": False,
        },
        renamed=LLADA,
        asserted=LLADA_ASSERTED,
        tensors=LLADA_TENSORS,
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A model for text and images, whose decoder belongs to a family."""

    decoder: str  # architecture of its family
    prefix: str  # of the names of the decoder's tensors in published files
    modules: str  # of the names of its layers in the model of `transformers`, and in some files


WRAPPERS = {
    "Gemma3ForConditionalGeneration": Wrapper(
        decoder="Gemma3ForCausalLM",
        prefix="language_model.",
        modules="model.language_model.",
    ),
}
MODULES = "model."
"""Prefix of the names of the layers in a model of text alone."""
