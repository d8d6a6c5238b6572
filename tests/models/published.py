"""Small models of `transformers` with random weights, one or two of each family that we read."""

from __future__ import annotations

from typing import Any

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
# Three wavelengths of sixteen dimensions lie in each band: kept, blended, divided.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e3,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA = {
    "head_dim": 16,
    "sliding_window": 5,
    "query_pre_attn_scalar": 24,
    "final_logit_softcapping": 2.0,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
MOE = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}
CASES = {
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_yarn_upper_window": (
        "Qwen2",
        {
            "rope_parameters": YARN,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
        },
    ),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3_moe": ("Qwen3Moe", {**MOE, "norm_topk_prob": True}),
    "qwen3_moe_unnormalized": ("Qwen3Moe", {**MOE, "norm_topk_prob": False}),
    "llama": ("Llama", {"head_dim": 16, "rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {"head_dim": 16, "sliding_window": 5}),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 1.5}),
    "gemma3": ("Gemma3", {**GEMMA, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}),
}
# The decoder of "gemma3" within a model for text and images, and an image encoder beside it. There
# `transformers` caps no logits, and no published file asks for it.
IMAGES = {
    "text_config": {**SIZES, **CASES["gemma3"][1], "final_logit_softcapping": None},
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
    "boi_token_index": 58,
    "eoi_token_index": 59,
    "image_token_index": 60,
}
TEXT_TOKENS = 58  # ids below it are text in every case


def random_model(name: str) -> Any:
    """A model of `CASES`, or the one for text and images ("gemma3_images"), in float32."""
    import torch
    import transformers

    if name == "gemma3_images":
        model, settings = transformers.Gemma3ForConditionalGeneration, IMAGES
    else:
        family, changes = CASES[name]
        model, settings = getattr(transformers, f"{family}ForCausalLM"), {**SIZES, **changes}
    torch.manual_seed(0)
    made = model(
        model.config_class(**settings, attn_implementation="eager", dtype="float32")
    ).eval()
    with torch.no_grad():
        for parameter_name, weight in made.named_parameters():
            if "norm" in parameter_name:
                weight += 0.2 * torch.randn_like(weight)
            else:
                weight.normal_(std=0.5 if weight.ndim == 1 else weight.shape[-1] ** -0.5)
    return made
