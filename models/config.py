"""Shapes and conventions of decoder models as data.

A difference between families is a field here, not another module.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, Literal

from gtpo_jax import settings
from gtpo_jax.settings import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, Rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Stretching of rotary frequencies for contexts longer than in pretraining."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """Rule by which frequencies are stretched. none turns it off."""
    factor: float = 1.0  # divisor of the low frequencies (all kinds)
    original_positions: int = 8192  # context length in pretraining (llama3, yarn)
    low_freq_factor: float = 1.0  # frequencies with fewer turns in that context are low (llama3)
    high_freq_factor: float = 4.0  # frequencies with more turns are unchanged (llama3)
    beta_fast: float = 32.0  # as `high_freq_factor` (yarn)
    beta_slow: float = 1.0  # as `low_freq_factor` (yarn)
    attention_factor: float | None = None  # factor of cos and sin (yarn); None: 1 + 0.1 ln(factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder: RMSNorm, rotary positions, grouped queries, a gated MLP or experts.

    It is causal, or with a `mask_id` a masked-diffusion model, whose tokens see each other.
    """

    vocab_size: Annotated[int, AT_LEAST_1]  # rows of the embedding; may exceed the tokenizer's
    width: Annotated[int, AT_LEAST_1]  # width of the residual stream (D)
    layers: Annotated[int, AT_LEAST_1]  # number of layers (L)
    query_heads: Annotated[int, AT_LEAST_1]  # number of query heads (Q)
    kv_heads: Annotated[int, AT_LEAST_1]  # key and value heads (KV), a divisor of `query_heads`
    head_dim: Annotated[int, AT_LEAST_1]  # width of a head (H), even
    mlp_width: Annotated[int, AT_LEAST_1]  # hidden width of the gated MLP, or of each expert
    qkv_bias: bool = False  # add a bias to queries, keys and values (Qwen2)
    qk_norm: bool = False  # normalize queries and keys (Qwen3, Gemma 3)
    tied_embeddings: bool = True  # use the embedding as the output head
    mask_id: int | None = None  # id of the mask of a diffusion model; None: a causal model

    rope_theta: Annotated[float, POSITIVE] = 1e6  # base of the rotary wavelengths
    rope_scaling: RopeScaling = RopeScaling()
    window: int | None = None  # tokens that a local layer sees, the current one included
    window_pattern: tuple[bool, ...] = (True,)  # which layers are local, repeated from the first on
    local_rope_theta: float | None = None  # base in local layers, unscaled; None: `rope_theta`

    activation: Literal["silu", "gelu_tanh"] = "silu"  # activation of the MLP's gate
    norm_eps: Annotated[float, POSITIVE] = 1e-6  # added to the mean square that a norm divides by
    zero_centered_norms: bool = False  # scale norms by 1 + their parameter (Gemma)
    post_norms: bool = False  # also normalize the outputs of attention and MLP (Gemma)
    embedding_scale: bool = False  # multiply embeddings by √D (Gemma)
    query_scalar: float | None = None  # attention scores are divided by its root; None: `head_dim`
    attention_softcap: float | None = None  # cap c of scores: c · tanh(scores / c) (Gemma 2)
    logit_softcap: float | None = None  # the same cap for logits (Gemma 2)

    experts: Annotated[int, NOT_NEGATIVE] = 0  # number of experts (E); 0: one MLP for all tokens
    experts_per_token: int = 0  # number of experts that each token uses
    normalize_router: bool = True  # let the weights of a token's experts sum to 1

    init_scale: Annotated[float, POSITIVE] = 0.02  # standard deviation of the initial embedding
    residual_init: Annotated[float, NOT_NEGATIVE] = 1.0
    """Initial scale of what attention and MLP add to the residual. At 0 every layer begins as the
    identity, so that all layers read the embeddings."""
    param_dtype: str = "float32"  # type of the parameters, such as bfloat16
    compute_dtype: str = "float32"  # type of matrix products, such as bfloat16
    attention: Rounded[Literal["auto", "plain", "cudnn", "splash"]] = "auto"
    """Attention kernel of passes without a cache. auto: cuDNN on GPU and splash on TPU, where they
    support the shapes, plain elsewhere."""
    remat: Rounded[Literal["none", "dots", "full"]] = "none"
    """Activations recomputed in the backward pass: none, all but the products with dense matrices
    (dots), or whole layers (full)."""

    def __post_init__(self):
        settings.check_bounds(self, "model.")
        if self.query_heads % self.kv_heads:
            raise ValueError(
                "query_heads must be a multiple of kv_heads,"
                f" got {self.query_heads} and {self.kv_heads}"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(
                f"head_dim must be positive and even for rotary positions, got {self.head_dim}"
            )
        if self.window is not None and (self.window < 1 or not self.window_pattern):
            raise ValueError(
                "a window needs at least one token and a pattern of at least one layer,"
                f" got window={self.window} and window_pattern={self.window_pattern}"
            )
        if self.local_rope_theta is not None and self.window is None:
            raise ValueError(
                f"local_rope_theta={self.local_rope_theta} is for layers with a window,"
                " and window is None; give it as rope_theta"
            )
        if self.mask_id is not None and not 0 <= self.mask_id < self.vocab_size:
            raise ValueError(
                f"mask_id must be an id below vocab_size={self.vocab_size}, got {self.mask_id}"
            )
        if self.mask_id is not None and self.window is not None:
            raise ValueError(
                f"a diffusion model (mask_id={self.mask_id}) has no window,"
                f" got window={self.window}"
            )
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"experts_per_token must be in 1 to experts={self.experts},"
                f" got {self.experts_per_token}"
            )

    @property
    def causal(self) -> bool:
        """True if a token sees none that comes after it."""
        return self.mask_id is None

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """For each layer, True if it sees only the window."""
        if self.window is None:
            return (False,) * self.layers
        return tuple(itertools.islice(itertools.cycle(self.window_pattern), self.layers))

    @property
    def score_scale(self) -> float:
        """Factor of the products of queries and keys."""
        return (self.head_dim if self.query_scalar is None else self.query_scalar) ** -0.5

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        attention = self.width * self.head_dim * 2 * (self.query_heads + self.kv_heads)
        attention += self.qkv_bias * self.head_dim * (self.query_heads + 2 * self.kv_heads)
        attention += self.qk_norm * 2 * self.head_dim
        mlp = 3 * self.width * self.mlp_width
        if self.experts:
            mlp = self.experts * (mlp + self.width)
        norms = (4 if self.post_norms else 2) * self.width
        block = attention + mlp + norms
        embeddings = self.vocab_size * self.width * (1 if self.tied_embeddings else 2)
        return self.layers * block + embeddings + self.width
