"""Device meshes, and the mapping from logical axes of parameters to mesh axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gtpo_jax.types import Cache, ForwardFn, Params

T = TypeVar("T")

MESH_AXES = ("data", "fsdp", "sequence", "tensor")
ROW_AXES = ("data", "fsdp", "sequence")
"""Mesh axes that shard the rows of a rollout."""
BATCH_AXES = ("data", "fsdp")
"""Mesh axes that shard the rows of a batch; its positions are sharded over `sequence`."""
ACROSS = "_across"
"""Suffix of the name of the part of a mesh axis that crosses processes."""

LOGICAL_RULES: Mapping[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "experts": "tensor",
    "expert_mlp": None,
    "head_dim": None,
    "layers": None,
}


def make_mesh(
    *, data: int = -1, fsdp: int = 1, sequence: int = 1, tensor: int = 1, devices=None
) -> Mesh:
    """A mesh over all devices; one axis may be −1 and is inferred from the others."""
    devices = jax.devices() if devices is None else devices
    sizes = _sizes(
        {"data": data, "fsdp": fsdp, "sequence": sequence, "tensor": tensor}, len(devices)
    )
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    auto = (AxisType.Auto,) * len(MESH_AXES)
    if len({device.process_index for device in devices}) > 1:
        # Each process must own one contiguous block. `jax.make_mesh` optimizes for interconnect
        # only, and scatters the devices of a TPU machine over the mesh.
        ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(ordered).reshape(shape), MESH_AXES, axis_types=auto)
    return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)


def _sizes(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Devices along each axis, with the −1 axis inferred.

    Raises ValueError, suggesting sizes that fit, unless the axes use all `count` devices.
    """
    axes = f"mesh axes {', '.join(f'{name} {size}' for name, size in sizes.items())}"
    open_axes = [name for name, size in sizes.items() if size == -1]
    wrong = [name for name, size in sizes.items() if size < 1 and size != -1]
    if wrong or len(open_axes) > 1:
        raise ValueError(f"{axes}: each must be at least 1, and one of them may be -1")
    fixed = {name: size for name, size in sizes.items() if size != -1}
    product = math.prod(fixed.values())
    if count % product == 0 and (open_axes or product == count):
        return {**sizes, **dict.fromkeys(open_axes, count // product)}
    if count % product == 0:
        raise ValueError(
            f"{axes} do not multiply to the {count} devices present; set one of them to -1"
        )
    ways = []
    for name, size in fixed.items():
        others = product // size
        if size > 1 and count % others == 0:
            left = count // others
            fitting = [n for n in range(1, left + 1) if left % n == 0] if open_axes else [left]
            ways.append(f"{name} may be {', '.join(map(str, fitting))}")
    way_out = " or ".join(ways) or f"their product must divide {count}"
    raise ValueError(f"{axes} do not multiply to the {count} devices present: {way_out}")


def platform(mesh: Mesh | None) -> str:
    """Platform of a mesh: `cpu`, `gpu` or `tpu`. Without a mesh: JAX's default backend.

    The two differ when a program is compiled ahead of time for devices that are not present.
    """
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def row_count(mesh: Mesh, axes: Sequence[str] = ROW_AXES) -> int:
    """Number of shards of the rows, by default the rows of a rollout."""
    return math.prod(mesh.shape[axis] for axis in axes)


def check_rows(rows: int, mesh: Mesh, name: str, axes: Sequence[str] = ROW_AXES) -> None:
    """Raises unless the devices along `axes` divide `rows` evenly."""
    shards = row_count(mesh, axes)
    if rows % shards:
        raise ValueError(
            f"{name} is {rows}, which {shards} devices cannot share evenly;"
            f" use a multiple of {shards}"
        )


def row_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Sharding of a rollout: over rows; `leading` axes before the row axis are not sharded."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, ROW_AXES))


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Sharding of a batch `[..., B, T]`: rows over the data axes, positions over `sequence`."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, BATCH_AXES, "sequence"))


def distribute(tree: T, placement: NamedSharding) -> T:
    """Places NumPy arrays, equal on every process, on the devices of `placement`."""
    if not placement.mesh.is_multi_process:
        return jax.device_put(tree, placement)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            leaf.shape, placement, lambda index: np.asarray(leaf)[index]
        ),
        tree,
    )


def with_auto_axes(forward: ForwardFn, mesh: Mesh) -> ForwardFn:
    """Wraps a forward pass for a mesh with Explicit axes: inside it, the compiler shards the work.

    Inputs keep the shardings of their types; hidden states and logits are sharded like a batch.
    Caches are not supported: decode programs run on Auto axes.
    """
    rows = batch_sharding(mesh)

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        if cache is not None:
            raise ValueError("a cache needs a mesh with Auto axes; use the unwrapped forward pass")

        def run(params, tokens, positions, segment_ids, prefix_ids):
            states, _ = forward.hidden(
                params, tokens, positions, segment_ids=segment_ids, prefix_ids=prefix_ids
            )
            return states

        inside: Any = jax.sharding.auto_axes(run, out_sharding=rows)
        return inside(params, tokens, positions, segment_ids, prefix_ids), None

    logits: Any = jax.sharding.auto_axes(forward.logits, out_sharding=rows)
    return dataclasses.replace(forward, hidden=hidden, logits=logits)


def cache_sharding(mesh: Mesh, leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
    """Sharding of a cache leaf: rows over the data axes, and the key heads of `[B, KV, S, H]` over
    `tensor` if it divides them evenly.
    """
    divisible = leaf.ndim == 4 and leaf.shape[1] % mesh.shape["tensor"] == 0
    return NamedSharding(mesh, PartitionSpec(ROW_AXES, "tensor" if divisible else None))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(
    logical_axes: Params, mesh: Mesh, rules: Mapping[str, str | None] = LOGICAL_RULES
) -> Params:
    """Maps a tree of logical axes, tuples of names, to a tree of shardings."""

    def sharding(names: tuple[str | None, ...]) -> NamedSharding:
        unknown = [name for name in names if name is not None and name not in rules]
        if unknown:
            raise ValueError(f"no sharding rule for logical axes {unknown}; known: {sorted(rules)}")
        axes = [None if name is None else rules[name] for name in names]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(sharding, logical_axes, is_leaf=lambda x: isinstance(x, tuple))


def process_block(owners: np.ndarray) -> tuple[int, ...]:
    """Number of devices along each axis of a mesh that every process owns.

    `owners [data, fsdp, sequence, tensor]` holds the process of each device. Raises, on every
    process alike, unless the processes own contiguous blocks of equal size, each with all of
    `tensor`, so that each has rows of its own.
    """
    each = owners.size // len(np.unique(owners))
    block = [0] * owners.ndim
    for axis in reversed(range(owners.ndim)):
        name, size = MESH_AXES[axis], owners.shape[axis]
        sizes = set()
        for process in np.unique(owners):
            lines = np.moveaxis(owners == process, axis, -1).reshape(-1, size)
            lines = np.unique(lines[lines.any(axis=1)], axis=0)
            places = np.flatnonzero(lines[0])
            side_by_side = int(places[-1] - places[0]) == len(places) - 1
            sizes.add(len(places) if len(lines) == 1 and side_by_side else 0)
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError(
                f"along {name}, of size {size}, the processes do not drive blocks of one size;"
                f" choose {name} such that, times the axes behind it, it divides the {each} devices"
                " of a process or is a multiple of them"
            )
        [block[axis]] = sizes
        if name not in ROW_AXES and block[axis] != size:
            raise ValueError(
                f"{name} has {size} devices, of which a process drives only {block[axis]}; set"
                f" {name} to a divisor of the {each} devices of a process, and let data or fsdp"
                " lead from one process to another"
            )
    return tuple(block)


def local_mesh(mesh: Mesh) -> Mesh:
    """The block of a mesh that this process owns, with the same axes; the whole mesh if no other
    process owns devices of it. Raises if the parts are not blocks; see `process_block`.
    """
    if not mesh.is_multi_process:
        return mesh
    owners = _owners(mesh)
    missing = sorted(set(range(jax.process_count())) - set(owners.flat))
    if missing:
        raise ValueError(
            f"processes {missing} drive no device of the mesh; make it over the devices of all"
        )
    process_block(owners)
    mine = np.argwhere(owners == jax.process_index())
    slices = (slice(low, high + 1) for low, high in zip(mine.min(0), mine.max(0), strict=True))
    return Mesh(mesh.devices[tuple(slices)], mesh.axis_names, axis_types=mesh.axis_types)


def localize(params: Params, mesh: Mesh) -> Params:
    """Moves parameters from `mesh` to `local_mesh(mesh)`, the block of this process.

    A collective: all processes call it. A parameter sharded over an axis that crosses processes is
    gathered over that part of the axis, and stays sharded within the process. A parameter that is
    complete in this process is not copied.

    Uncopied parameters alias the buffers of `params`: once an update donates `params`, the result
    is deleted too and must be computed again.
    """
    local = local_mesh(mesh)
    if local is mesh:
        return params
    leaves, tree = jax.tree.flatten(params)
    strangers = [leaf.sharding for leaf in leaves if getattr(leaf.sharding, "mesh", None) != mesh]
    if strangers:
        raise ValueError(
            f"a parameter is on {strangers[0]}, not on the mesh; place it by `param_shardings`"
        )
    split = _split(mesh, local)
    spread = [i for i, leaf in enumerate(leaves) if _crosses_processes(leaf.sharding, local)]
    if spread:
        placements = tuple(NamedSharding(split, leaves[i].sharding.spec) for i in spread)
        gather = jax.jit(_identity, out_shardings=placements)
        for index, leaf in zip(spread, gather(tuple(leaves[i] for i in spread)), strict=True):
            leaves[index] = leaf
    return jax.tree.unflatten(
        tree,
        [
            jax.make_array_from_single_device_arrays(
                leaf.shape,
                NamedSharding(local, leaf.sharding.spec),
                [shard.data for shard in leaf.addressable_shards],
            )
            for leaf in leaves
        ],
    )


def _identity(leaves: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return leaves


def _owners(mesh: Mesh) -> np.ndarray:
    """The process that owns each device of a mesh, in the shape of the mesh."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)


def _split(mesh: Mesh, local: Mesh) -> Mesh:
    """The mesh with every axis split in two: `<name>_across` processes, and `<name>` within one."""
    shape = [
        part
        for whole, within in zip(mesh.devices.shape, local.devices.shape, strict=True)
        for part in (whole // within, within)
    ]
    names = [part for name in mesh.axis_names for part in (name + ACROSS, name)]
    types = [kind for kind in mesh.axis_types for _ in range(2)]
    return Mesh(mesh.devices.reshape(shape), tuple(names), axis_types=tuple(types))


def _crosses_processes(placement: NamedSharding, local: Mesh) -> bool:
    """True if a parameter is sharded over an axis that crosses processes."""
    axes = jax.tree.leaves(tuple(placement.spec))
    return any(placement.mesh.shape[axis] != local.shape[axis] for axis in axes)
