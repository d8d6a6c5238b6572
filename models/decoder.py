"""The decoder: one linen module, two ways through it.

Without a cache the layers run under `nn.scan` (one compiled block, whatever the depth). With a
cache they are unrolled over a tuple of per-layer arrays, because rewriting one stacked cache costs
more than the attention itself when a single token is decoded. Both paths use the same parameters,
stacked `[L, ...]`; the unrolled one also takes them layer by layer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gtpo_jax.devices import sharding
from gtpo_jax.types import Cache, ForwardFn, Params
from models import moe, rope
from models.config import ModelConfig
from models.kernels import choice as attention
from models.layers import RMSNorm, flat_product, matrix_init, param

LayerCache = tuple[jax.Array, jax.Array]  # keys, values: [B, KV, S, H]
Pair = TypeVar("Pair")

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


class Pass(NamedTuple):
    """What the layers of one pass share. Pairs are of global layers, and of local ones."""

    positions: jax.Array  # [B, T]
    rotary: tuple[rope.Table, rope.Table]
    masks: attention.Masks | None  # None: a kernel makes its own
    segment_ids: jax.Array | None  # [B, T]
    prefixes: attention.Prefixes | None = None


def of_kind(pair: tuple[Pair, Pair], local: bool | jax.Array) -> Pair:
    """The second of a pair of pytrees for a local layer, the first for a global one."""
    if isinstance(local, bool):
        return pair[local]
    return jax.tree.map(lambda every, near: jnp.where(local, near, every), *pair)


class Block(nn.Module):
    """One layer: attention, and a gated MLP or experts, each behind a norm, around a residual."""

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        shared: Pass,
        local: bool | jax.Array | None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """`local` None: all layers are of one kind."""
        c = self.config
        batch, length, _ = x.shape
        local = c.local_layers[0] if local is None else local
        dtype, param_dtype = jnp.dtype(c.compute_dtype), jnp.dtype(c.param_dtype)
        # Axes that devices share cannot become one, and a step has but one position.
        whole = self.mesh is None or self.mesh.shape.get("sequence", 1) == 1
        product = flat_product if whole and cache is None else None

        def dense(name: str, features: int, axes: tuple[str, str], bias: bool = False) -> nn.Dense:
            # Each matrix starts at the same scale on its output as on its input, but for those
            # that write to the residual.
            scale = c.residual_init if axes[1] == "embed" else 1.0
            kernel = nn.with_logical_partitioning(matrix_init(scale), axes)
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes[1:])
            return nn.Dense(
                features,
                use_bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                kernel_init=kernel,
                bias_init=zeros,
                dot_general=product,
                name=name,
            )

        norm = functools.partial(RMSNorm, c.norm_eps, dtype, param_dtype, c.zero_centered_norms)

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
            table = of_kind(shared.rotary, local)
            q, k = rope.rotate(q, table), rope.rotate(k, table)
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            if cache is not None:
                at = (jnp.arange(batch)[:, None, None], jnp.arange(c.kv_heads)[:, None])
                at = (*at, shared.positions[:, None])
                k = cache[0].at[at].set(k.astype(cache[0].dtype), mode="drop")
                v = cache[1].at[at].set(v.astype(cache[1].dtype), mode="drop")
                cache = (k, v)
            if shared.masks is None:
                h = attention.causal(
                    c, q, k, v, shared.segment_ids, shared.prefixes, local, mesh=self.mesh
                )
            else:
                mask = of_kind(shared.masks, local)
                blocks = shared.prefixes is not None
                blocks |= whole and cache is None and length >= attention.LONG
                h = (attention.in_blocks if blocks else attention.plain)(
                    q, k, v, mask, scale=c.score_scale, softcap=c.attention_softcap
                )
            h = dense("o_proj", c.width, ("heads", "embed"))(h.reshape(batch, length, -1))
            x = x + (norm(name="attention_post_norm")(h) if c.post_norms else h)

        with jax.named_scope("mlp"):
            h = norm(name="mlp_norm")(x)
            activation = ACTIVATIONS[c.activation]
            if c.experts:
                h = moe.Experts(c, activation, name="experts")(h)
            else:
                gate = dense("gate_proj", c.mlp_width, ("embed", "mlp"))(h)
                up = dense("up_proj", c.mlp_width, ("embed", "mlp"))(h)
                h = dense("down_proj", c.width, ("mlp", "embed"))(activation(gate) * up)
            x = x + (norm(name="mlp_post_norm")(h) if c.post_norms else h)
        return x, cache


class Decoder(nn.Module):
    """Token ids to hidden states (`hidden`) and hidden states to logits (`logits`)."""

    config: ModelConfig
    mesh: Mesh | None = None  # over which kernels run

    def setup(self):
        c = self.config
        dtype, param_dtype = jnp.dtype(c.compute_dtype), jnp.dtype(c.param_dtype)
        normal = nn.initializers.normal(c.init_scale)
        shape = (c.vocab_size, c.width)
        axes = ("vocab", "embed")
        self.embedding = param(self, "embedding", normal, axes, shape, param_dtype)
        block = Block
        if c.remat != "none":
            block = nn.remat(Block, prevent_cse=False, policy=REMAT_POLICIES[c.remat])
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=c.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.mesh)
        self.final_norm = RMSNorm(c.norm_eps, dtype, param_dtype, c.zero_centered_norms)
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
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        c = self.config
        dtype = jnp.dtype(c.compute_dtype)
        x = jnp.take(self.embedding, tokens, axis=0).astype(dtype)
        if c.embedding_scale:
            x = x * jnp.asarray(c.width**0.5, dtype)
        rotary = rope.tables(c, positions)
        if cache is None:
            masks, prefixes = None, None
            if prefix_ids is not None:
                if segment_ids is None:
                    raise ValueError("prefix_ids name segments; give segment_ids with them")
                prefixes = attention.Prefixes(prefix_ids, positions)
            if attention.choose(c, length=tokens.shape[1], mesh=self.mesh) == "plain":
                masks = attention.causal_masks(tokens, segment_ids, prefixes, window=c.window)
            kinds = None if len(set(c.local_layers)) == 1 else jnp.asarray(c.local_layers)
            shared = Pass(positions, rotary, masks, segment_ids, prefixes)
            x, _ = self.layers(x, shared, kinds)
        else:
            masks = attention.cache_masks(positions, cache[0][0].shape[2], window=c.window)
            shared = Pass(positions, rotary, masks, None)
            layers = unstacked(self.variables["params"])["layers"]
            new_cache = []
            for params, local, layer_cache in zip(layers, c.local_layers, cache, strict=True):
                block = Block(c, parent=None)
                x, layer_cache = block.apply({"params": params}, x, shared, local, layer_cache)
                new_cache.append(layer_cache)
            cache = tuple(new_cache)
        return self.final_norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        c = self.config
        table = self.embedding if c.tied_embeddings else self.head
        table = table.astype(c.compute_dtype)
        logits = jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)
        if c.logit_softcap is not None:
            logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
        return logits


def unstacked(params: Params) -> Params:
    """The same parameters with those of each layer by themselves, in a tuple."""
    layers = params["layers"]
    if isinstance(layers, tuple):
        return params
    count = len(jax.tree.leaves(layers)[0])
    each = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(count))
    return {**params, "layers": each}


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
    # How a pass is computed says nothing of the parameters.
    config = dataclasses.replace(config, attention="plain", remat="none")
    return Decoder(config).init(key, dummy, dummy)["params"]


def forward_fn(
    config: ModelConfig, *, unstack: bool | None = None, mesh: Mesh | None = None
) -> ForwardFn:
    """The decoder as the pure functions that `gtpo_jax` works with.

    `unstack`: each decode segment begins with a copy of the parameters, layer by layer. Without it
    a CPU copies the slice of each layer in every step; where memory is scarce, a copy is not
    wanted. The default is yes on CPU, no elsewhere.

    `mesh`: that of `gtpo_jax.devices.sharding`, for attention kernels, which the compiler cannot
    divide; plain attention does without.
    """
    module = Decoder(config, mesh)

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        variables = {"params": params}
        result = module.apply(
            variables, tokens, positions, segment_ids, prefix_ids, cache, method=Decoder.hidden
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
        unstack = sharding.platform(mesh) == "cpu"
    layout = {"for_decoding": unstacked} if unstack else {}
    return ForwardFn(hidden, logits, init_cache, config.vocab_size, **layout)
