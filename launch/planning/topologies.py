"""Devices that need not exist: `v5p:4x4x4` is a slice of TPUs, `cpu:8` are fake devices.

For TPUs the compiler is the real one, from the wheel `libtpu`; it needs no TPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from launch.planning.chips import CHIPS, Chip

NAME = re.compile(r"([a-z0-9]+):(\d+(?:x\d+)*)")
HOST = (2, 2, 1)  # chips of one machine along each axis, where there is more than one machine
ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",  # otherwise it asks the cloud about this machine, and waits
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at once share no device
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "none",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices of one kind, in the order in which JAX lists them."""

    name: str
    devices: Sequence[Any]
    chip: Chip | None  # None: of no kind that a plan has figures of
    grid: tuple[int, ...]  # chips along each axis

    @property
    def chips(self) -> int:
        return math.prod(self.grid)

    @property
    def processes(self) -> int:
        """Number of machines, each of which runs one process."""
        return len({device.process_index for device in self.devices})

    def rollout_mesh(self, mesh: Mesh) -> Mesh:
        """The part of a mesh that one process drives, as a slice of its own, because the compiler
        does not accept parts of some slices.
        """
        block = process_mesh(mesh)
        if self.chip is None or self.processes == 1:
            return block
        kind, grid = self.name.split(":")[0], HOST[: self.chip.axes]
        devices = _described(f"{kind}:{'x'.join(map(str, grid))}", grid)
        placed = np.array(sorted(devices, key=lambda device: device.id)).reshape(
            block.devices.shape
        )
        return Mesh(placed, mesh.axis_names, axis_types=mesh.axis_types)

    def sent_per_second(self, mesh: Mesh, group: Sequence[int]) -> float:
        """Bytes that each device of a group can send per second; `group` are positions in the mesh.

        On every axis of the grid along which the group extends, a chip uses both links if the axis
        is closed to a ring and the group goes all around it; otherwise one, as at the end of the
        group.
        """
        chip = self.chip
        if chip is None:
            raise ValueError(f"nothing is known of the links of {self.name}")
        devices = [mesh.devices.flat[place] for place in group]
        if len({tuple(d.coords) for d in devices}) == 1:  # devices of one chip
            return chip.ici_bandwidth / chip.devices
        links = 0
        for axis, size in enumerate(self.grid):
            along = len({device.coords[axis] for device in devices})
            if along > 1:
                closed = size % chip.ring == 0 and along == size
                links += 2 if closed else 1
        return chip.ici_bandwidth * links / (2 * chip.axes) / chip.devices


def find(name: str) -> Topology:
    """The topology of a name; a ValueError explains an error in the name."""
    match = NAME.fullmatch(name)
    if match is None or (match.group(1) != "cpu" and match.group(1) not in CHIPS):
        raise ValueError(
            f"topology {name!r} is unknown; give cpu:N for N fake devices, or chips and their grid,"
            f" such as v5p:4x4x4 or v5e:4x4; the chips are {', '.join(CHIPS)}"
        )
    kind, grid = match.group(1), tuple(int(size) for size in match.group(2).split("x"))
    if kind == "cpu":
        return Topology(name=name, devices=_fake(math.prod(grid)), chip=None, grid=grid)
    chip = CHIPS[kind]
    if len(grid) != chip.axes:
        raise ValueError(
            f"topology {name!r} has {len(grid)} axes, and chips of {kind} form grids of {chip.axes}"
        )
    return Topology(name=name, devices=_described(name, grid), chip=chip, grid=grid)


def process_mesh(mesh: Mesh) -> Mesh:
    """The part of a mesh that the process of its first device drives; its rollouts run there."""
    owners = np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
    mine = np.argwhere(owners == owners.flat[0])
    slices = (slice(low, high + 1) for low, high in zip(mine.min(0), mine.max(0), strict=True))
    return Mesh(mesh.devices[tuple(slices)], mesh.axis_names, axis_types=mesh.axis_types)


def _fake(count: int) -> Sequence[Any]:
    with contextlib.suppress(RuntimeError):  # too late to change: the devices are counted below
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ValueError(
            f"cpu:{count} needs {count} devices and this process has {len(devices)} already; set"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    return devices[:count]


def _described(name: str, grid: tuple[int, ...]) -> Sequence[Any]:
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ValueError(
            f"topology {name!r} needs libtpu, the compiler for TPUs: pip install -e '.[tpu-plan]'"
        )
    for variable, value in ALONE.items():
        os.environ.setdefault(variable, value)
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(grid) == 1 else {}
    try:
        with _quiet():
            return topologies.get_topology_desc(name, "tpu", **bounds).devices
    except (ImportError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"topology {name!r} cannot be described: {reason}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the library writes to the terminal below Python, which is of no use."""
    stderr = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
