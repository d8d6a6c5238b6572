"""Shapes of decoder models as data.

What differs between families is a field here, not another module.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder in the Qwen2/Qwen3 style: RMSNorm, rotary positions, grouped queries, SwiGLU."""

    vocab_size: int  # rows of the embedding; may exceed the tokenizer's
    width: int  # D
    layers: int  # L
    query_heads: int  # Q
    kv_heads: int  # KV, a divisor of `query_heads`
    head_dim: int  # H
    mlp_width: int
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3
    tied_embeddings: bool = True
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    init_scale: float = 0.02  # standard deviation of the initial embedding
    param_dtype: str = "float32"
    compute_dtype: str = "float32"

    def __post_init__(self):
        if self.query_heads % self.kv_heads:
            raise ValueError(
                "query_heads must be a multiple of kv_heads,"
                f" got {self.query_heads} and {self.kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        attention = self.width * self.head_dim * 2 * (self.query_heads + self.kv_heads)
        attention += self.qkv_bias * self.head_dim * (self.query_heads + 2 * self.kv_heads)
        attention += self.qk_norm * 2 * self.head_dim
        mlp = 3 * self.width * self.mlp_width
        block = attention + mlp + 2 * self.width
        embeddings = self.vocab_size * self.width * (1 if self.tied_embeddings else 2)
        return self.layers * block + embeddings + self.width
