"""LoRA: low-rank adapters beside the frozen dense matrices of a decoder (arXiv 2106.09685).

A projection `x W` becomes `x W + (alpha / rank) · (x A) B`. Parameters are a tree of two parts:

    {"base": as from `decoder.init_params`, "adapter": A and B of every target}

Both parts are arguments of the model; gradients stop at the base. Updates change only the adapters
when the state comes from `learner.init_state(params, optimizer, trained=(ADAPTER,))`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import qwix
from jax.sharding import Mesh

from gtpo_jax.types import Cache, ForwardFn, Params
from models import decoder
from models.config import ModelConfig

BASE, ADAPTER = "base", "adapter"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
A, B = "kernel_lora_a", "kernel_lora_b"  # [L, in, r], [L, r, out]; `kernel` is [L, in, out]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which projections get adapters, and their size."""

    rank: int = 16
    alpha: float = 32.0  # the output of an adapter is multiplied by alpha / rank
    targets: tuple[str, ...] | Literal["all linear"] = "all linear"
    """Names of projections. All linear: attention and MLP; experts have no adapters."""

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha must be positive and finite, got {self.alpha}")
        if self.targets == "all linear":
            return
        known = (*ATTENTION, *MLP)
        if not isinstance(self.targets, tuple) or not self.targets:
            raise ValueError(
                f'targets must be "all linear" or a tuple of at least one of {known},'
                f" got {self.targets!r}"
            )
        unknown = [name for name in self.targets if name not in known]
        if unknown or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"targets must be different names among {known}, got {self.targets};"
                f" unknown: {unknown}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def targets(config: ModelConfig, lora: LoraConfig) -> tuple[str, ...]:
    """Names of the projections of this model that get adapters.

    Raises ValueError if one of them belongs to experts, or if the rank is not smaller than both
    sides of every matrix.
    """
    heads, kv_heads = config.query_heads * config.head_dim, config.kv_heads * config.head_dim
    outputs = {"q_proj": heads, "k_proj": kv_heads, "v_proj": kv_heads, "o_proj": heads}
    if not config.experts:
        outputs |= dict.fromkeys(MLP, config.mlp_width)
    chosen = tuple(outputs) if lora.targets == "all linear" else lora.targets
    absent = [name for name in chosen if name not in outputs]
    if absent:
        raise ValueError(
            f"{absent} belong to the experts of this model, which have no adapters;"
            f" choose targets among {tuple(outputs)}"
        )
    # One side of each matrix is `width`. qwix may identify a matrix by its shape alone, so A and B
    # must have other shapes; and from this rank on, nothing is low-rank.
    limit = min(config.width, *(outputs[name] for name in chosen))
    if lora.rank >= limit:
        raise ValueError(
            f"rank must be below {limit}, the shortest side of the matrices of {chosen},"
            f" got {lora.rank}"
        )
    return tuple(name for name in outputs if name in chosen)


def init_adapters(config: ModelConfig, lora: LoraConfig, key: jax.Array) -> Params:
    """Fresh adapters, float32 whatever `param_dtype` is: A random, B zero, so they add nothing yet.

    Call it under `jax.jit`, which leaves out the base that it would make on the way.
    """
    return nn.unbox(_init_boxed(config, lora, key))


def add(params: Params, adapters: Params) -> Params:
    """Joins the parameters of a decoder and its adapters into the parameters of `forward_fn`."""
    if BASE in params:
        raise ValueError(
            f"these parameters already have adapters; `merge` them, or take the part {BASE!r}"
        )
    for name, adapter in adapters["layers"].items():
        layers, inputs, outputs = params["layers"][name]["kernel"].shape
        rank = adapter[A].shape[-1]
        expected, got = ((layers, inputs, rank), (layers, rank, outputs)), _shapes(adapter)
        if expected != got:
            raise ValueError(
                f"adapters of {name} must have the shapes {expected}, got {got};"
                " were they made for another model?"
            )
    return {BASE: params, ADAPTER: adapters}


def logical_axes(config: ModelConfig, lora: LoraConfig) -> Params:
    """Logical axis names of every parameter: tuples, in a tree of the parameters' structure.

    A has the input axis of its matrix and B the output axis; the axis of the rank has no name.
    """
    boxed = jax.eval_shape(functools.partial(_init_boxed, config, lora), jax.random.key(0))
    adapters = jax.tree.map(
        lambda leaf: leaf.names, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
    )
    return {BASE: decoder.logical_axes(config), ADAPTER: adapters}


def merge(params: Params, lora: LoraConfig) -> Params:
    """Parameters of a decoder without adapters: `W + (alpha / rank) · A B` for every target.

    The sum is computed in float32 and rounded to the dtype of W. In bfloat16 that drops updates
    smaller than 1/512 of their weight.
    """
    layers = dict(params[BASE]["layers"])
    for name, adapter in params[ADAPTER]["layers"].items():
        kernel = layers[name]["kernel"]
        a, b = (adapter[part].astype(jnp.float32) for part in (A, B))
        delta = lora.scale * jnp.einsum("lir,lro->lio", a, b, precision="highest")
        merged = (kernel.astype(jnp.float32) + delta).astype(kernel.dtype)
        layers[name] = {**layers[name], "kernel": merged}
    return {**params[BASE], "layers": layers}


def forward_fn(
    config: ModelConfig,
    lora: LoraConfig,
    *,
    unstack: bool | None = None,
    mesh: Mesh | None = None,
) -> ForwardFn:
    """The decoder with adapters as the pure functions that `gtpo_jax` works with.

    `params` come from `add`. `unstack` and `mesh` are as in `decoder.forward_fn`.

    A decode segment reads base and adapters separately, as the learner does. Merging them first
    would make no step faster on CPU, and in bfloat16 it would round small adapters away: the policy
    that samples would not be the policy that is trained.
    """
    module = _module(config, lora, mesh)
    plain = decoder.forward_fn(config, unstack=unstack, mesh=mesh)
    join = functools.partial(_joined, dtype=jnp.dtype(config.compute_dtype))

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        variables = {"params": join(params)}
        result = module.apply(
            variables, tokens, positions, segment_ids, prefix_ids, cache, method="hidden"
        )
        return cast(tuple[jax.Array, Cache | None], result)

    def logits(params: Params, hidden_states: jax.Array) -> jax.Array:
        return plain.logits(join(params), hidden_states)

    def for_decoding(params: Params) -> Params:
        return plain.for_decoding(join(params))

    return ForwardFn(hidden, logits, plain.init_cache, config.vocab_size, for_decoding)


def _joined(params: Params, *, dtype: jnp.dtype) -> Params:
    """One tree, with adapters beside their kernels; no gradient flows to the base.

    A tree that is already joined is returned as it is.
    """
    if BASE not in params:
        return params
    base = jax.lax.stop_gradient(params[BASE])
    layers = dict(base["layers"])
    for name, adapter in params[ADAPTER]["layers"].items():
        layers[name] = layers[name] | jax.tree.map(lambda leaf: leaf.astype(dtype), adapter)
    return {**base, "layers": layers}


def _shapes(adapter: Params) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(adapter[part].shape) for part in (A, B))


def _module(config: ModelConfig, lora: LoraConfig, mesh: Mesh | None = None) -> nn.Module:
    """The decoder, with targets that look for adapters beside their kernels."""
    names = "|".join(targets(config, lora))
    # Under the scan a layer is called `layers`; with a cache it is a module of its own.
    provider = qwix.LoraProvider(
        module_path=f"(layers/)?({names})", rank=lora.rank, alpha=lora.alpha
    )
    methods = ("__call__", "hidden")
    module = qwix.apply_lora_to_model(decoder.Decoder(config, mesh), provider, methods=methods)
    return cast(nn.Module, module)


def _init_boxed(config: ModelConfig, lora: LoraConfig, key: jax.Array) -> Params:
    # Parameters do not depend on how a pass is computed.
    config = dataclasses.replace(
        config, attention="plain", remat="none", param_dtype="float32", compute_dtype="float32"
    )
    dummy = jnp.zeros((1, 2), jnp.int32)
    layers = _module(config, lora).init(key, dummy, dummy)["params"]["layers"]
    names = targets(config, lora)
    return {"layers": {name: {part: layers[name][part] for part in (A, B)} for name in names}}
