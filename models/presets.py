"""Named shapes. `tiny` is what the demo trains from scratch; the others are published models."""

from __future__ import annotations

from models.config import ModelConfig

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

MODELS: dict[str, ModelConfig] = {
    "tiny": TINY,
    "qwen2.5-0.5b": QWEN2_5_0_5B,
    "qwen2.5-1.5b": QWEN2_5_1_5B,
    "qwen2.5-7b": QWEN2_5_7B,
    "qwen3-0.6b": QWEN3_0_6B,
    "qwen3-8b": QWEN3_8B,
}
