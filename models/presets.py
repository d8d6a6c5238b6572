"""Named shapes. The demo trains `tiny` from scratch; the others are published models."""

from __future__ import annotations

import dataclasses

from models.config import ModelConfig, RopeScaling

TINY = ModelConfig(
    vocab_size=256,
    width=64,
    layers=3,
    query_heads=2,
    kv_heads=1,
    head_dim=64,
    mlp_width=192,
    qkv_bias=True,
    rope_theta=1e4,
    init_scale=0.125,
    residual_init=0.0,
)

TINY_DIFFUSION = dataclasses.replace(
    # Short texts: a rotary base that tells near places apart.
    TINY,
    vocab_size=264,
    head_dim=32,
    rope_theta=30.0,
    mask_id=256,
)

QWEN2_5_0_5B = ModelConfig(
    vocab_size=151_936,
    width=896,
    layers=24,
    query_heads=14,
    kv_heads=2,
    head_dim=64,
    mlp_width=4864,
    qkv_bias=True,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN2_5_1_5B = ModelConfig(
    vocab_size=151_936,
    width=1536,
    layers=28,
    query_heads=12,
    kv_heads=2,
    head_dim=128,
    mlp_width=8960,
    qkv_bias=True,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN2_5_7B = ModelConfig(
    vocab_size=152_064,
    width=3584,
    layers=28,
    query_heads=28,
    kv_heads=4,
    head_dim=128,
    mlp_width=18_944,
    qkv_bias=True,
    tied_embeddings=False,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN2_5_32B = ModelConfig(
    vocab_size=152_064,
    width=5120,
    layers=64,
    query_heads=40,
    kv_heads=8,
    head_dim=128,
    mlp_width=27_648,
    qkv_bias=True,
    tied_embeddings=False,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN3_0_6B = ModelConfig(
    vocab_size=151_936,
    width=1024,
    layers=28,
    query_heads=16,
    kv_heads=8,
    head_dim=128,
    mlp_width=3072,
    qk_norm=True,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN3_8B = ModelConfig(
    vocab_size=151_936,
    width=4096,
    layers=36,
    query_heads=32,
    kv_heads=8,
    head_dim=128,
    mlp_width=12_288,
    qk_norm=True,
    tied_embeddings=False,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

QWEN3_30B_A3B = ModelConfig(
    vocab_size=151_936,
    width=2048,
    layers=48,
    query_heads=32,
    kv_heads=4,
    head_dim=128,
    mlp_width=768,
    experts=128,
    experts_per_token=8,
    qk_norm=True,
    tied_embeddings=False,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

LLAMA_3_1_8B = ModelConfig(
    vocab_size=128_256,
    width=4096,
    layers=32,
    query_heads=32,
    kv_heads=8,
    head_dim=128,
    mlp_width=14_336,
    tied_embeddings=False,
    rope_theta=5e5,
    rope_scaling=RopeScaling(kind="llama3", factor=8.0),
    norm_eps=1e-5,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

LLAMA_3_2_1B = ModelConfig(
    vocab_size=128_256,
    width=2048,
    layers=16,
    query_heads=32,
    kv_heads=8,
    head_dim=64,
    mlp_width=8192,
    rope_theta=5e5,
    rope_scaling=RopeScaling(kind="llama3", factor=32.0),
    norm_eps=1e-5,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

MISTRAL_7B = ModelConfig(  # v0.1; later versions have no window
    vocab_size=32_000,
    width=4096,
    layers=32,
    query_heads=32,
    kv_heads=8,
    head_dim=128,
    mlp_width=14_336,
    tied_embeddings=False,
    rope_theta=1e4,
    window=4096,
    norm_eps=1e-5,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

GEMMA_2_2B = ModelConfig(
    vocab_size=256_000,
    width=2304,
    layers=26,
    query_heads=8,
    kv_heads=4,
    head_dim=256,
    mlp_width=9216,
    rope_theta=1e4,
    window=4096,
    window_pattern=(True, False),
    activation="gelu_tanh",
    zero_centered_norms=True,
    post_norms=True,
    embedding_scale=True,
    query_scalar=256,
    attention_softcap=50.0,
    logit_softcap=30.0,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

GEMMA_3_1B = ModelConfig(
    vocab_size=262_144,
    width=1152,
    layers=26,
    query_heads=4,
    kv_heads=1,
    head_dim=256,
    mlp_width=6912,
    qk_norm=True,
    window=512,
    window_pattern=(True,) * 5 + (False,),
    local_rope_theta=1e4,
    activation="gelu_tanh",
    zero_centered_norms=True,
    post_norms=True,
    embedding_scale=True,
    query_scalar=256,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

LLADA_8B = ModelConfig(  # a masked-diffusion model
    vocab_size=126_464,
    width=4096,
    layers=32,
    query_heads=32,
    kv_heads=32,
    head_dim=128,
    mlp_width=12_288,
    tied_embeddings=False,
    mask_id=126_336,
    rope_theta=5e5,
    norm_eps=1e-5,
    param_dtype="bfloat16",
    compute_dtype="bfloat16",
)

GEMMA_3_12B = dataclasses.replace(  # without the image encoder that the checkpoint also has
    GEMMA_3_1B,
    vocab_size=262_208,
    width=3840,
    layers=48,
    query_heads=16,
    kv_heads=8,
    mlp_width=15_360,
    rope_scaling=RopeScaling(kind="linear", factor=8.0),
    window=1024,
)

MODELS: dict[str, ModelConfig] = {
    "tiny": TINY,
    "tiny-diffusion": TINY_DIFFUSION,
    "qwen2.5-0.5b": QWEN2_5_0_5B,
    "qwen2.5-1.5b": QWEN2_5_1_5B,
    "qwen2.5-7b": QWEN2_5_7B,
    "qwen2.5-32b": QWEN2_5_32B,
    "qwen3-0.6b": QWEN3_0_6B,
    "qwen3-8b": QWEN3_8B,
    "qwen3-30b-a3b": QWEN3_30B_A3B,
    "llama-3.1-8b": LLAMA_3_1_8B,
    "llama-3.2-1b": LLAMA_3_2_1B,
    "mistral-7b": MISTRAL_7B,
    "llada-8b": LLADA_8B,
    "gemma-2-2b": GEMMA_2_2B,
    "gemma-3-1b": GEMMA_3_1B,
    "gemma-3-12b": GEMMA_3_12B,
}
