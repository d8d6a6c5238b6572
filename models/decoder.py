"""The decoder: one linen module with two ways through it.

Without a cache the layers run under `nn.scan` (one compiled block, whatever the depth). With a
cache they are unrolled over a tuple of per-layer arrays, because rewriting one stacked cache costs
more than the attention itself when a single token is decoded. Both ways use the same parameters,
stacked `[L, ...]`; the unrolled one also takes a tuple of layers.
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
from models import layers, moe, rope
from models.config import ModelConfig
from models.kernels import choice, masks, plain

LayerCache = tuple[jax.Array, jax.Array]  # keys, values: [B, KV, S, H]
Dense = Callable[..., nn.Dense]  # `layers.dense` of one pass
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
    """Inputs that all layers of one pass share. Pairs are of global layers, and of local ones."""

    positions: jax.Array  # [B, T]
    rotary: tuple[rope.Table, rope.Table]
    masks: masks.Masks | None  # None: a kernel makes its own
    segment_ids: jax.Array | None  # [B, T]
    prefixes: masks.Prefixes | None = None


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
        local = c.local_layers[0] if local is None else local
        # Axes that devices share cannot become one, and a decode step has only one position.
        flat = cache is None and (self.mesh is None or self.mesh.shape.get("sequence", 1) == 1)
        dense = functools.partial(layers.dense, c, product=layers.flat_product if flat else None)
        with jax.named_scope("attention"):
            h = layers.norm(c, name="attention_norm")(x)
            q, k, v = self._projections(dense, h, shared.rotary, local)
            if cache is not None:
                k, v = cache = _written(cache, k, v, shared.positions)
            h = self._attend(q, k, v, shared, local, flat=flat)
            h = dense("o_proj", c.width, ("heads", "embed"))(h.reshape(*x.shape[:2], -1))
            x = x + (layers.norm(c, name="attention_post_norm")(h) if c.post_norms else h)
        with jax.named_scope("mlp"):
            h = self._mlp(dense, layers.norm(c, name="mlp_norm")(x))
            x = x + (layers.norm(c, name="mlp_post_norm")(h) if c.post_norms else h)
        return x, cache

    @nn.nowrap
    def _projections(
        self,
        dense: Dense,
        h: jax.Array,
        rotary: tuple[rope.Table, rope.Table],
        local: bool | jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries `[B, T, Q, H]`, keys and values `[B, KV, T, H]`, rotated."""
        c = self.config
        batch, length, _ = h.shape
        q = dense("q_proj", c.query_heads * c.head_dim, ("embed", "heads"), bias=c.qkv_bias)(h)
        k = dense("k_proj", c.kv_heads * c.head_dim, ("embed", "kv_heads"), bias=c.qkv_bias)(h)
        v = dense("v_proj", c.kv_heads * c.head_dim, ("embed", "kv_heads"), bias=c.qkv_bias)(h)
        q = q.reshape(batch, length, c.query_heads, c.head_dim)
        k = k.reshape(batch, length, c.kv_heads, c.head_dim)
        v = v.reshape(batch, length, c.kv_heads, c.head_dim)
        if c.qk_norm:
            q = layers.norm(c, axis="head_dim", name="q_norm")(q)
            k = layers.norm(c, axis="head_dim", name="k_norm")(k)
        table = of_kind(rotary, local)
        q, k = rope.rotate(q, table), rope.rotate(k, table)
        return q, k.swapaxes(1, 2), v.swapaxes(1, 2)

    @nn.nowrap
    def _attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        shared: Pass,
        local: bool | jax.Array,
        *,
        flat: bool,
    ) -> jax.Array:
        """Attention by the kernel of the platform, or by the masks of the pass."""
        c = self.config
        if shared.masks is None:
            ids, prefixes = shared.segment_ids, shared.prefixes
            return choice.causal(c, q, k, v, ids, prefixes, local, mesh=self.mesh)
        blocks = shared.prefixes is not None or (flat and q.shape[1] >= plain.LONG)
        blocks = blocks and c.causal
        run = plain.in_blocks if blocks else plain.plain
        mask = of_kind(shared.masks, local)
        return run(q, k, v, mask, scale=c.score_scale, softcap=c.attention_softcap)

    @nn.nowrap
    def _mlp(self, dense: Dense, h: jax.Array) -> jax.Array:
        c = self.config
        activation = ACTIVATIONS[c.activation]
        if c.experts:
            return moe.Experts(c, activation, name="experts")(h)
        gate = dense("gate_proj", c.mlp_width, ("embed", "mlp"))(h)
        up = dense("up_proj", c.mlp_width, ("embed", "mlp"))(h)
        return dense("down_proj", c.width, ("mlp", "embed"))(activation(gate) * up)


def _written(
    cache: LayerCache, k: jax.Array, v: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cache of a layer with new keys and values `[B, KV, T, H]` at their positions `[B, T]`."""
    batch, heads = k.shape[:2]
    at = (jnp.arange(batch)[:, None, None], jnp.arange(heads)[:, None], positions[:, None])
    keys, values = cache
    return (
        keys.at[at].set(k.astype(keys.dtype), mode="drop"),
        values.at[at].set(v.astype(values.dtype), mode="drop"),
    )


class Decoder(nn.Module):
    """Token ids to hidden states (`hidden`) and hidden states to logits (`logits`)."""

    config: ModelConfig
    mesh: Mesh | None = None  # that attention kernels run over

    def setup(self):
        c = self.config
        param_dtype = jnp.dtype(c.param_dtype)
        normal = nn.initializers.normal(c.init_scale)
        shape = (c.vocab_size, c.width)
        axes = ("vocab", "embed")
        self.embedding = layers.param(self, "embedding", normal, axes, shape, param_dtype)
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
        self.final_norm = layers.norm(c)
        if not c.tied_embeddings:
            self.head = layers.param(self, "head", normal, axes, shape, param_dtype)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Touches every parameter; used to initialize them."""
        return self.logits(self.hidden(tokens, positions)[0])

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states `[B, T, D]`, and the cache with the keys and values of these tokens."""
        c = self.config
        dtype = jnp.dtype(c.compute_dtype)
        x = jnp.take(self.embedding, tokens, axis=0).astype(dtype)
        if c.embedding_scale:
            x = x * jnp.asarray(c.width**0.5, dtype)
        rotary = rope.tables(c, positions)
        if not c.causal:
            if cache is not None or prefix_ids is not None:
                raise ValueError(
                    "a diffusion model (mask_id is set) computes whole rows: it has no cache and"
                    " shares no prompts; use decoding.diffusion, and leave shared_prompts off"
                )
            visible = masks.two_way_masks(tokens, segment_ids)
            x, _ = self.layers(x, Pass(positions, rotary, visible, segment_ids), None)
            return self.final_norm(x), None
        if cache is not None:
            visible = masks.cache_masks(positions, cache[0][0].shape[2], window=c.window)
            x, cache = self._unrolled(x, Pass(positions, rotary, visible, None), cache)
            return self.final_norm(x), cache
        visible, prefixes = None, None
        if prefix_ids is not None:
            if segment_ids is None:
                raise ValueError("prefix_ids name segments; give segment_ids with them")
            prefixes = masks.Prefixes(prefix_ids, positions)
        if choice.choose(c, length=tokens.shape[1], mesh=self.mesh) == "plain":
            visible = masks.causal_masks(tokens, segment_ids, prefixes, window=c.window)
        kinds = None if len(set(c.local_layers)) == 1 else jnp.asarray(c.local_layers)
        shared = Pass(positions, rotary, visible, segment_ids, prefixes)
        x, _ = self.layers(x, shared, kinds)
        return self.final_norm(x), None

    @nn.nowrap
    def _unrolled(self, x: jax.Array, shared: Pass, cache: Cache) -> tuple[jax.Array, Cache]:
        """The layers one after another, each with its own part of the cache."""
        c = self.config
        each = unstacked(self.variables["params"])["layers"]
        new_cache = []
        for params, local, layer_cache in zip(each, c.local_layers, cache, strict=True):
            block = Block(c, parent=None)
            x, layer_cache = block.apply({"params": params}, x, shared, local, layer_cache)
            new_cache.append(layer_cache)
        return x, tuple(new_cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """float32 `[..., V]` of hidden states `[..., D]`."""
        c = self.config
        table = self.embedding if c.tied_embeddings else self.head
        table = table.astype(c.compute_dtype)
        logits = jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)
        if c.logit_softcap is not None:
            logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
        return logits


def unstacked(params: Params) -> Params:
    """The same parameters with `layers` as a tuple of one tree per layer."""
    stacked = params["layers"]
    if isinstance(stacked, tuple):
        return params
    count = len(jax.tree.leaves(stacked)[0])
    each = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count))
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
    # Parameters do not depend on how a pass is computed.
    config = dataclasses.replace(config, attention="plain", remat="none")
    return Decoder(config).init(key, dummy, dummy)["params"]


def forward_fn(
    config: ModelConfig, *, unstack: bool | None = None, mesh: Mesh | None = None
) -> ForwardFn:
    """The decoder as the pure functions that `gtpo_jax` works with.

    `unstack`: each decode segment begins with a copy of the parameters, layer by layer. Without it
    a CPU copies the slice of each layer in every step. Where memory is scarce, leave it off. The
    default is on for CPU and off elsewhere.

    `mesh`: from `gtpo_jax.devices.sharding`, for attention kernels, which the compiler cannot
    divide; plain attention does not need it.
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
    made = ForwardFn(hidden, logits, init_cache, config.vocab_size)
    return dataclasses.replace(made, for_decoding=unstacked) if unstack else made
