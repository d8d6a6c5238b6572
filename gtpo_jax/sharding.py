"""Meshes, and how logical axes of parameters map to mesh axes."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gtpo_jax.types import Params

MESH_AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")
"""Mesh axes over which rows of a batch are spread."""

LOGICAL_RULES: Mapping[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head_dim": None,
    "layers": None,
}


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """A mesh over all devices; one axis may be −1 and takes what the others leave."""
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    open_axes = [name for name, size in sizes.items() if size == -1]
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(open_axes) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[open_axes[0]] = len(devices) // fixed
    elif open_axes or fixed != len(devices) or min(sizes.values()) < 1:
        raise ValueError(
            f"mesh axes {sizes} do not multiply to the {len(devices)} devices present;"
            " set one of them to -1"
        )
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    auto = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)


def row_count(mesh: Mesh) -> int:
    """Number of shards that the rows of a batch are cut into."""
    return int(np.prod([mesh.shape[axis] for axis in ROW_AXES]))


def check_rows(rows: int, mesh: Mesh, name: str) -> None:
    """Raises unless `rows` can be shared evenly by the devices."""
    shards = row_count(mesh)
    if rows % shards:
        raise ValueError(
            f"{name} is {rows}, which {shards} devices cannot share evenly;"
            f" use a multiple of {shards}"
        )


def row_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows over the data axes; `leading` axes before the row axis stay whole."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, ROW_AXES))


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
