"""Chooses the attention kernel of a platform, and runs it over the devices of a mesh."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh, PartitionSpec

from gtpo_jax.devices import sharding
from models.config import ModelConfig
from models.kernels.fused import fused
from models.kernels.masks import Prefixes

Kernel = Literal["plain", "cudnn", "splash"]


@runtime_checkable
class CapableDevice(Protocol):
    """A GPU as JAX describes it; other devices have no such attribute."""

    compute_capability: str  # NVIDIA: major.minor


def obstacle(
    config: ModelConfig, kernel: Kernel, *, length: int, mesh: Mesh | None = None
) -> str | None:
    """The reason why a kernel cannot serve rows of `length` tokens, without a cache; or None."""
    backend = sharding.platform(mesh)
    if kernel == "cudnn":
        if backend != "gpu":
            return f"cuDNN runs on GPU, and this is {backend}"
        device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
        return _cudnn_obstacle(config, device, length)
    if kernel == "splash":
        if backend == "gpu":
            return "splash attention runs on TPU (and interpreted on CPU), and this is gpu"
        if config.head_dim % 64:
            return f"splash attention takes multiples of 64, and head_dim is {config.head_dim}"
        if backend == "tpu" and mesh is None and jax.device_count() > 1:
            return "several TPUs share a kernel by their mesh, and `forward_fn` was given none"
    return None


def _cudnn_obstacle(config: ModelConfig, device: object, length: int) -> str | None:
    if config.compute_dtype not in ("bfloat16", "float16"):
        return f"cuDNN computes in bfloat16 or float16, not in {config.compute_dtype}"
    if config.attention_softcap is not None:
        return f"cuDNN has no soft cap, and attention_softcap is {config.attention_softcap}"
    capability = device.compute_capability if isinstance(device, CapableDevice) else "none"
    if not re.fullmatch(r"\d+\.\d+", capability) or float(capability) < 8.0:
        return f"cuDNN needs an NVIDIA GPU of capability 8.0, and this one's is {capability}"
    widest = 256 if float(capability) >= 9.0 else 128
    if config.head_dim % 8 or config.head_dim > widest:
        return f"cuDNN takes multiples of 8 up to {widest}, and head_dim is {config.head_dim}"
    if length % 2:
        return f"cuDNN trains on rows of an even length only, and these have {length} tokens"
    return None


def choose(config: ModelConfig, *, length: int, mesh: Mesh | None = None) -> Kernel:
    """The kernel that the config names; for `auto`, the best one that this platform can run.

    Raises ValueError if the named kernel cannot be used.
    """
    blocked = functools.partial(obstacle, config, length=length, mesh=mesh)
    name = config.attention
    if name == "auto":
        best: dict[str, Kernel] = {"gpu": "cudnn", "tpu": "splash"}
        name = best.get(sharding.platform(mesh), "plain")
        return name if blocked(name) is None else "plain"
    reason = blocked(name)
    if reason is not None:
        raise ValueError(f"attention={name!r} cannot be used: {reason}; 'auto' picks one that can")
    return name


def causal(
    config: ModelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    prefixes: Prefixes | None,
    local: bool | jax.Array,
    *,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Runs the chosen kernel for a layer that is local or not; `local` may be traced.

    `q [B, T, Q, H]`, `k, v [B, KV, T, H]` → `[B, T, Q, H]`. Over a `mesh`, each device runs it on
    its own rows and, where they can be shared evenly, key heads. Positions that are shared along
    `sequence` are exchanged for heads meanwhile (arXiv 2309.14509), so that each device has all
    positions of its heads.
    """
    run = _chosen(config, q.shape[1], mesh)

    def with_window(window: int | None) -> Callable[..., jax.Array]:
        own = functools.partial(run, scale=config.score_scale, window=window)
        if mesh is None:
            return own
        packed, continued = segment_ids is not None, prefixes is not None
        return _over_devices(own, mesh, k.shape[1], packed=packed, continued=continued)

    # A kernel is compiled for its window, so layers of two kinds are two programs.
    if isinstance(local, bool):
        return with_window(config.window if local else None)(q, k, v, segment_ids, prefixes)
    kinds = with_window(config.window), with_window(None)
    return jax.lax.cond(local, *kinds, q, k, v, segment_ids, prefixes)


def _chosen(config: ModelConfig, length: int, mesh: Mesh | None) -> Callable[..., jax.Array]:
    """The kernel as a function, without its scale and window."""
    if choose(config, length=length, mesh=mesh) == "cudnn":
        return functools.partial(fused, implementation="cudnn")
    # Imported where it is used: Pallas takes its time.
    from models.kernels.splash import splash

    interpret = sharding.platform(mesh) != "tpu"
    return functools.partial(splash, softcap=config.attention_softcap, interpret=interpret)


def _over_devices(
    run: Callable[..., jax.Array], mesh: Mesh, kv_heads: int, *, packed: bool, continued: bool
) -> Callable[..., jax.Array]:
    """The kernel on every device of a mesh; `packed`: with segment ids, `continued`: prefixes."""
    shared = (("tensor", "sequence"), ("tensor",), ())
    heads = next(axes for axes in shared if kv_heads % sharding.row_count(mesh, axes) == 0)
    rows = PartitionSpec(sharding.BATCH_AXES)
    of_queries = PartitionSpec(sharding.BATCH_AXES, None, heads)
    of_keys = PartitionSpec(sharding.BATCH_AXES, heads)
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(
            of_queries,
            of_keys,
            of_keys,
            rows if packed else None,
            rows if continued else None,
        ),
        out_specs=of_queries,
        check_vma=False,
    )
