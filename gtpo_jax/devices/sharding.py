"""Meshes, and how logical axes of parameters map to mesh axes."""

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
"""Mesh axes over which the rows of a rollout are spread."""
BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which the rows of a batch are spread: their positions are, along `sequence`."""
ACROSS = "_across"
"""Ends the name of the part of a mesh axis that leads from one process to another."""

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
    """A mesh over all devices; one axis may be −1 and takes what the others leave."""
    devices = jax.devices() if devices is None else devices
    sizes = _sizes(
        {"data": data, "fsdp": fsdp, "sequence": sequence, "tensor": tensor}, len(devices)
    )
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    auto = (AxisType.Auto,) * len(MESH_AXES)
    if len({device.process_index for device in devices}) > 1:
        # Each process drives a block of its own; `jax.make_mesh` thinks of the wires alone, and
        # spreads the devices of a TPU host over the mesh.
        ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(ordered).reshape(shape), MESH_AXES, axis_types=auto)
    return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)


def _sizes(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Devices along each axis, the open one filled. Raises ValueError, with sizes that would do,
    where the axes do not take all `count` devices.
    """
    said = f"mesh axes {', '.join(f'{name} {size}' for name, size in sizes.items())}"
    open_axes = [name for name, size in sizes.items() if size == -1]
    wrong = [name for name, size in sizes.items() if size < 1 and size != -1]
    if wrong or len(open_axes) > 1:
        raise ValueError(f"{said}: each must be at least 1, and one of them may be -1")
    fixed = {name: size for name, size in sizes.items() if size != -1}
    product = math.prod(fixed.values())
    if count % product == 0 and (open_axes or product == count):
        return {**sizes, **dict.fromkeys(open_axes, count // product)}
    if count % product == 0:
        raise ValueError(
            f"{said} do not multiply to the {count} devices present; set one of them to -1"
        )
    ways = []
    for name, size in fixed.items():
        others = product // size
        if size > 1 and count % others == 0:
            left = count // others
            fitting = [n for n in range(1, left + 1) if left % n == 0] if open_axes else [left]
            ways.append(f"{name} may be {', '.join(map(str, fitting))}")
    way_out = " or ".join(ways) or f"their product has to divide {count}"
    raise ValueError(f"{said} do not multiply to the {count} devices present: {way_out}")


def platform(mesh: Mesh | None) -> str:
    """What a mesh runs on: `cpu`, `gpu` or `tpu`; without a mesh, where JAX runs by default.

    The two differ where a program is compiled for machines that are not there.
    """
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def row_count(mesh: Mesh, axes: Sequence[str] = ROW_AXES) -> int:
    """Number of shards that rows are cut into, by default those of a rollout."""
    return math.prod(mesh.shape[axis] for axis in axes)


def check_rows(rows: int, mesh: Mesh, name: str, axes: Sequence[str] = ROW_AXES) -> None:
    """Raises unless `rows` can be shared evenly by the devices along `axes`."""
    shards = row_count(mesh, axes)
    if rows % shards:
        raise ValueError(
            f"{name} is {rows}, which {shards} devices cannot share evenly;"
            f" use a multiple of {shards}"
        )


def row_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Of a rollout: its rows are shared; `leading` axes before the row axis stay whole."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, ROW_AXES))


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Of a batch `[..., B, T]`: rows are shared, and positions are along `sequence`."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, BATCH_AXES, "sequence"))


def distribute(tree: T, placement: NamedSharding) -> T:
    """NumPy arrays that every process has alike, as arrays that are placed so."""
    if not placement.mesh.is_multi_process:
        return jax.device_put(tree, placement)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            leaf.shape, placement, lambda index: np.asarray(leaf)[index]
        ),
        tree,
    )


def with_auto_axes(forward: ForwardFn, mesh: Mesh) -> ForwardFn:
    """The forward pass for a mesh with Explicit axes: inside, the compiler shares the work.

    What goes in keeps the shardings that its types say; hidden states and logits come out as a
    batch lies. Without a cache: decode programs run on Auto axes.
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
            raise ValueError("a cache needs a mesh with Auto axes; take the forward pass as it is")

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
    """Of a leaf of a cache: rows over the data axes, the key heads of `[B, KV, S, H]` over
    `tensor` where they can be shared evenly.
    """
    shared = leaf.ndim == 4 and leaf.shape[1] % mesh.shape["tensor"] == 0
    return NamedSharding(mesh, PartitionSpec(ROW_AXES, "tensor" if shared else None))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(
    logical_axes: Params, mesh: Mesh, rules: Mapping[str, str | None] = LOGICAL_RULES
) -> Params:
    """Sharding of every parameter from its logical axes.

    A tree of tuples of names becomes one of shardings.
    """

    def sharding(names: tuple[str | None, ...]) -> NamedSharding:
        unknown = [name for name in names if name is not None and name not in rules]
        if unknown:
            raise ValueError(f"no sharding rule for logical axes {unknown}; known: {sorted(rules)}")
        axes = [None if name is None else rules[name] for name in names]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(sharding, logical_axes, is_leaf=lambda x: isinstance(x, tuple))


def process_block(owners: np.ndarray) -> tuple[int, ...]:
    """How many devices every process drives along each axis of a mesh.

    `owners [data, fsdp, sequence, tensor]` are the processes that drive its devices. Raises, alike
    on every process, unless each drives a block of its own with rows of its own: all of `tensor`,
    and blocks of one size, side by side.
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
    """The part of a mesh that this process drives, with the same axes; all of it where no other
    process has a part. Raises where the parts are no blocks; see `process_block`.
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
    """Parameters that lie on `mesh`, as this process's own on `local_mesh(mesh)`.

    All processes call it together. Nothing is copied of a parameter whose shards here are all of
    it. One that is sharded over an axis that leads to other processes is gathered over that part
    of the axis, and stays sharded over the part within a process.

    What is not copied are the same buffers: an update that is given `params` to overwrite deletes
    the result as well, and it has to be made anew.
    """
    local = local_mesh(mesh)
    if local is mesh:
        return params
    leaves, tree = jax.tree.flatten(params)
    strangers = [leaf.sharding for leaf in leaves if getattr(leaf.sharding, "mesh", None) != mesh]
    if strangers:
        raise ValueError(
            f"a parameter lies on {strangers[0]}, not on the mesh; place it by `param_shardings`"
        )
    split = _split(mesh, local)
    spread = [i for i, leaf in enumerate(leaves) if _leads_across(leaf.sharding, local)]
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
    """The process that drives each device of a mesh, in its shape."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)


def _split(mesh: Mesh, local: Mesh) -> Mesh:
    """The mesh with every axis in two: its part across processes, and under its name the other."""
    shape = [
        part
        for whole, within in zip(mesh.devices.shape, local.devices.shape, strict=True)
        for part in (whole // within, within)
    ]
    names = [part for name in mesh.axis_names for part in (name + ACROSS, name)]
    types = [kind for kind in mesh.axis_types for _ in range(2)]
    return Mesh(mesh.devices.reshape(shape), tuple(names), axis_types=tuple(types))


def _leads_across(placement: NamedSharding, local: Mesh) -> bool:
    """Whether an axis over which a parameter is sharded is longer than its part in one process."""
    axes = jax.tree.leaves(tuple(placement.spec))
    return any(placement.mesh.shape[axis] != local.shape[axis] for axis in axes)
