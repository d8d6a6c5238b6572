"""The accelerators that a plan knows, as data.

Peak, memory and bandwidths are the vendor's figures for one chip; nothing here was measured.
`available` is the memory that the compiler lets the programs of one device fill, read from its
refusal of a program that is too large (libtpu 0.0.50): the runtime keeps the rest.
"""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, a node of a grid whose neighbors are linked."""

    devices: int = 1  # devices that JAX counts; they share all figures of the chip evenly
    hbm: float  # bytes
    available: float  # bytes per device
    flops: float  # operations per second of dense bfloat16 products
    hbm_bandwidth: float  # bytes per second
    ici_bandwidth: float  # bytes per second out of the chip over all links; as many go in
    axes: int  # axes of the grid
    ring: int  # an axis is closed to a ring if its size is a multiple of this


CHIPS: dict[str, Chip] = {
    # docs.cloud.google.com/tpu/docs/v5e. Both directions of the interconnect: 400 GB/s.
    "v5e": Chip(
        hbm=16e9,
        available=15.75 * GIB,
        flops=197e12,
        hbm_bandwidth=800e9,
        ici_bandwidth=200e9,
        axes=2,
        ring=16,
    ),
    # docs.cloud.google.com/tpu/docs/v5p. Both directions of the interconnect: 1,200 GB/s.
    "v5p": Chip(
        hbm=95 * GIB,
        available=95.73 * GIB,
        flops=459e12,
        hbm_bandwidth=2765e9,
        ici_bandwidth=600e9,
        axes=3,
        ring=4,
    ),
    # docs.cloud.google.com/tpu/docs/v6e. Both directions of the interconnect: 800 GB/s.
    "v6e": Chip(
        hbm=32e9,
        available=31.24 * GIB,
        flops=918e12,
        hbm_bandwidth=1638e9,
        ici_bandwidth=400e9,
        axes=2,
        ring=16,
    ),
    # docs.cloud.google.com/tpu/docs/tpu7x. Both directions of the interconnect: 1,200 GB/s.
    "tpu7x": Chip(
        devices=2,
        hbm=192 * GIB,
        available=94.74 * GIB,
        flops=2307e12,
        hbm_bandwidth=7380e9,
        ici_bandwidth=600e9,
        axes=3,
        ring=4,
    ),
}
"""Chips by the names that topologies use."""
