"""Small configs, each with a feature that the others lack."""

import dataclasses

from models.config import RopeScaling
from tests.tiny import CONFIG

GEMMA = dataclasses.replace(
    CONFIG,
    qkv_bias=False,
    layers=3,
    activation="gelu_tanh",
    zero_centered_norms=True,
    post_norms=True,
    embedding_scale=True,
    query_scalar=12.0,
)
QWEN3 = dataclasses.replace(CONFIG, qkv_bias=False, qk_norm=True)
VARIANTS = {
    "grouped_with_bias": CONFIG,
    "qk_norm": QWEN3,
    "one_kv_head_untied": dataclasses.replace(CONFIG, kv_heads=1, tied_embeddings=False),
    "no_groups": dataclasses.replace(CONFIG, kv_heads=CONFIG.query_heads),
    "window": dataclasses.replace(CONFIG, window=4),
    "scaled_rope": dataclasses.replace(
        CONFIG, rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_positions=128)
    ),
    "soft_caps": dataclasses.replace(
        GEMMA,
        window=4,
        window_pattern=(True, False),
        attention_softcap=1.5,
        logit_softcap=2.0,
    ),
    "two_ropes": dataclasses.replace(
        GEMMA,
        qk_norm=True,
        window=3,
        window_pattern=(True, True, False),
        local_rope_theta=100.0,
        rope_scaling=RopeScaling(kind="linear", factor=4.0),
    ),
    "experts": dataclasses.replace(QWEN3, mlp_width=24, experts=5, experts_per_token=2),
    "experts_unnormalized": dataclasses.replace(
        QWEN3, mlp_width=24, experts=5, experts_per_token=3, normalize_router=False
    ),
}
