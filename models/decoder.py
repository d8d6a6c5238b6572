"""The decoder: one linen module, two ways through it.

Without a cache the layers run under `nn.scan` (one compiled block, whatever the depth). With a
cache they are unrolled over a tuple of per-layer arrays, because rewriting one stacked cache costs
more than the attention itself when a single token is decoded. Both paths use the same parameters,
stacked `[L, ...]`; the unrolled one also takes them layer by layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gtpo_jax.types import Cache, ForwardFn, Params
from models.config import ModelConfig

LayerCache = tuple[jax.Array, jax.Array]  # keys, values: [B, KV, S, H]


def rotate(x: jax.Array, positions: jax.Array, *, theta: float) -> jax.Array:
    """Rotary position embedding of `x [B, T, N, H]`; the two halves of H form the pairs.

    Angles are float32: in bfloat16 positions beyond 256 would no longer be exact integers.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention.

    `q [B, T, Q, H]`, `k, v [B, KV, S, H]`, `mask [B, T, S]` → `[B, T, Q, H]`.
    """
    batch, length, query_heads, head_dim = q.shape
    kv_heads = k.shape[1]
    group = query_heads // kv_heads
    # The queries of a key head are rows of one matrix: with a single new token there are few.
    q = q.reshape(batch, length, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, group * length, head_dim)
    scores = jnp.einsum("bkmh,bksh->bkms", q, k, preferred_element_type=jnp.float32)
    visible = jnp.tile(mask, (1, group, 1))[:, None]
    scores = jnp.where(visible, scores * head_dim**-0.5, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkms,bksh->bkmh", weights, v)
    out = out.reshape(batch, kv_heads, group, length, head_dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, length, query_heads, head_dim)


def param(
    module: nn.Module,
    name: str,
    initializer: Callable[..., jax.Array],
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Declares a parameter of a module, with the logical names of its axes."""
    boxed = nn.with_logical_partitioning(initializer, axes)
    return cast(jax.Array, module.param(name, boxed, shape, dtype))  # linen takes it out of its box


class RMSNorm(nn.Module):
    eps: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = param(self, "scale", nn.initializers.ones, (self.axis,), shape, self.param_dtype)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return (x * scale.astype(jnp.float32)).astype(self.dtype)


class Block(nn.Module):
    """One layer: attention and a gated MLP, each behind a norm and around a residual."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, cache: LayerCache | None = None
    ) -> tuple[jax.Array, LayerCache | None]:
        c = self.config
        batch, length, _ = x.shape
        dtype, param_dtype = jnp.dtype(c.compute_dtype), jnp.dtype(c.param_dtype)

        def dense(name: str, features: int, axes: tuple[str, str], bias: bool = False) -> nn.Dense:
            # Each matrix starts at the same scale on its output as on its input.
            kernel = nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes)
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes[1:])
            return nn.Dense(
                features,
                use_bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                kernel_init=kernel,
                bias_init=zeros,
                name=name,
            )

        norm = functools.partial(RMSNorm, c.norm_eps, dtype, param_dtype)

        with jax.named_scope("attention"):
            h = norm(name="attention_norm")(x)
            q = dense("q_proj", c.query_heads * c.head_dim, ("embed", "heads"), c.qkv_bias)(h)
            k = dense("k_proj", c.kv_heads * c.head_dim, ("embed", "kv_heads"), c.qkv_bias)(h)
            v = dense("v_proj", c.kv_heads * c.head_dim, ("embed", "kv_heads"), c.qkv_bias)(h)
            q = q.reshape(batch, length, c.query_heads, c.head_dim)
            k = k.reshape(batch, length, c.kv_heads, c.head_dim)
            v = v.reshape(batch, length, c.kv_heads, c.head_dim)
            if c.qk_norm:
                q = norm(axis="head_dim", name="q_norm")(q)
                k = norm(axis="head_dim", name="k_norm")(k)
            q = rotate(q, positions, theta=c.rope_theta)
            k = rotate(k, positions, theta=c.rope_theta)
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            if cache is not None:
                at = (jnp.arange(batch)[:, None, None], jnp.arange(c.kv_heads)[:, None])
                at = (*at, positions[:, None])
                k = cache[0].at[at].set(k.astype(cache[0].dtype), mode="drop")
                v = cache[1].at[at].set(v.astype(cache[1].dtype), mode="drop")
                cache = (k, v)
            h = attend(q, k, v, mask).reshape(batch, length, -1)
            x = x + dense("o_proj", c.width, ("heads", "embed"))(h)

        with jax.named_scope("mlp"):
            h = norm(name="mlp_norm")(x)
            gate = dense("gate_proj", c.mlp_width, ("embed", "mlp"))(h)
            up = dense("up_proj", c.mlp_width, ("embed", "mlp"))(h)
            x = x + dense("down_proj", c.width, ("mlp", "embed"))(nn.silu(gate) * up)
        return x, cache


class Decoder(nn.Module):
    """Token ids to hidden states (`hidden`) and hidden states to logits (`logits`)."""

    config: ModelConfig

    def setup(self):
        c = self.config
        dtype, param_dtype = jnp.dtype(c.compute_dtype), jnp.dtype(c.param_dtype)
        normal = nn.initializers.normal(c.init_scale)
        shape = (c.vocab_size, c.width)
        axes = ("vocab", "embed")
        self.embedding = param(self, "embedding", normal, axes, shape, param_dtype)
        self.layers = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=c.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c)
        self.final_norm = RMSNorm(c.norm_eps, dtype, param_dtype)
        if not c.tied_embeddings:
            self.head = param(self, "head", normal, axes, shape, param_dtype)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Touches every parameter; used to initialise them."""
        return self.logits(self.hidden(tokens, positions)[0])

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        c = self.config
        x = jnp.take(self.embedding, tokens, axis=0).astype(c.compute_dtype)
        if cache is None:
            x, _ = self.layers(x, positions, causal_mask(tokens, segment_ids))
        else:
            slots = jnp.arange(cache[0][0].shape[2])
            mask = slots <= positions[:, :, None]
            layers = unstacked(self.variables["params"])["layers"]
            new_cache = []
            for params, layer_cache in zip(layers, cache, strict=True):
                block = Block(c, parent=None)
                x, layer_cache = block.apply({"params": params}, x, positions, mask, layer_cache)
                new_cache.append(layer_cache)
            cache = tuple(new_cache)
        return self.final_norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        table = self.embedding if self.config.tied_embeddings else self.head
        table = table.astype(self.config.compute_dtype)
        return jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)


def unstacked(params: Params) -> Params:
    """The same parameters with those of each layer by themselves, in a tuple."""
    layers = params["layers"]
    if isinstance(layers, tuple):
        return params
    count = len(jax.tree.leaves(layers)[0])
    each = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(count))
    return {**params, "layers": each}


def causal_mask(tokens: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """`[B, T, T]`: token t sees token s when s ≤ t and both belong to the same segment."""
    index = jnp.arange(tokens.shape[1])
    mask = jnp.broadcast_to(index[:, None] >= index, (tokens.shape[0], len(index), len(index)))
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters: an ordinary dict pytree, layers stacked on the first axis."""
    return nn.unbox(_init_boxed(config, key))


def logical_axes(config: ModelConfig) -> Params:
    """Logical axis names of every parameter: tuples, in a tree of the parameters' structure."""
    boxed = jax.eval_shape(functools.partial(_init_boxed, config), jax.random.key(0))
    return jax.tree.map(
        lambda leaf: leaf.names, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
    )


def _init_boxed(config: ModelConfig, key: jax.Array) -> Params:
    dummy = jnp.zeros((1, 2), jnp.int32)
    return Decoder(config).init(key, dummy, dummy)["params"]


def forward_fn(config: ModelConfig, *, unstack: bool | None = None) -> ForwardFn:
    """The decoder as the pure functions that `gtpo_jax` works with.

    `unstack`: each decode segment begins with a copy of the parameters, layer by layer. Without it
    a CPU copies the slice of each layer in every step; where memory is scarce, a copy is not
    wanted. The default is yes on CPU, no elsewhere.
    """
    module = Decoder(config)

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        variables = {"params": params}
        result = module.apply(
            variables, tokens, positions, segment_ids, cache, method=Decoder.hidden
        )
        return cast(tuple[jax.Array, Cache | None], result)

    def logits(params: Params, hidden_states: jax.Array) -> jax.Array:
        result = module.apply({"params": params}, hidden_states, method=Decoder.logits)
        return cast(jax.Array, result)

    def init_cache(rows: int, positions: int) -> Cache:
        shape = (rows, config.kv_heads, positions, config.head_dim)
        zeros = functools.partial(jnp.zeros, shape, jnp.dtype(config.compute_dtype))
        return tuple((zeros(), zeros()) for _ in range(config.layers))

    if unstack is None:
        unstack = jax.default_backend() == "cpu"
    layout = {"for_decoding": unstacked} if unstack else {}
    return ForwardFn(hidden, logits, init_cache, config.vocab_size, **layout)
